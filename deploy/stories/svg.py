"""Pictures of routing figures, as SVG that is legible on light and dark pages."""

from xml.sax.saxutils import escape

COLOURS = ("#8a8f98", "#2f7ed8", "#e0792b")
STYLE = ("<style>text{font:12px sans-serif;fill:#24292f}.paper{fill:#fff}"
         "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.paper{fill:#0d1117}}</style>")
LEFT, ROW, BAR, WIDTH = 110, 14, 11, 420


def _picture(width, height, parts, title):
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" role="img"><title>{escape(title)}</title>{STYLE}'
            f'<rect class="paper" width="{width}" height="{height}"/>{"".join(parts)}</svg>\n')


def _text(x, y, text, anchor="start"):
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'


def bars(title, names, series):
    """names: one per group; series: {what: [a number in 0 to 1 per group]}, at most three."""
    parts, y = [_text(10, 20, title)], 34
    for index, (what, colour) in enumerate(zip(series, COLOURS)):
        parts += [f'<rect x="{LEFT + index * 150}" y="{y}" width="11" height="11" fill="{colour}"/>',
                  _text(LEFT + index * 150 + 16, y + 10, what)]
    y += 24
    for group, name in enumerate(names):
        parts.append(_text(LEFT - 10, y + ROW * len(series) / 2 + 4, name, "end"))
        for values, colour in zip(series.values(), COLOURS):
            length = round(WIDTH * values[group], 1)
            parts += [f'<rect x="{LEFT}" y="{y}" width="{length}" height="{BAR}" fill="{colour}"/>',
                      _text(LEFT + length + 5, y + 10, f"{values[group]:.1%}")]
            y += ROW
        y += 8
    return _picture(LEFT + WIDTH + 60, y + 4, parts, title)


def heat(title, rows, columns, counts):
    """counts: [rows][columns]; every column adds up to one."""
    cell, top = 58, 104
    parts = [_text(10, 20, title)]
    for index, name in enumerate(columns):
        x = LEFT + index * cell + cell / 2
        parts.append(f'<text x="{x}" y="{top - 8}" transform="rotate(-40 {x} {top - 8})">{escape(name)}</text>')
    for row, name in enumerate(rows):
        y = top + row * 26
        parts.append(_text(LEFT - 10, y + 17, name, "end"))
        for index, count in enumerate(counts[row]):
            share = count / max(sum(line[index] for line in counts), 1)
            x = LEFT + index * cell
            parts += [f'<rect x="{x}" y="{y}" width="{cell - 2}" height="24" fill="{COLOURS[1]}" '
                      f'fill-opacity="{share:.3f}" stroke="{COLOURS[0]}" stroke-opacity="0.4"/>',
                      _text(x + cell / 2 - 1, y + 16, f"{share:.0%}" if share >= 0.005 else "", "middle")]
    return _picture(LEFT + cell * len(columns) + 50, top + 26 * len(rows) + 12, parts, title)
