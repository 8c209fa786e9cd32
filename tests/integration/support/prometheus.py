"""A strict reader of the Prometheus text format 0.0.4: whatever a scraper may reject is an error here."""

import re

FAMILY_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
SAMPLE = re.compile(rf"({FAMILY_NAME})(?:\{{(.*)\}})? (\S+)")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,(?=.)|$)')
TYPES = ("counter", "gauge", "histogram")


class Metrics:
    """families: name -> (type, {(sample name, frozenset of label pairs): value}), in the order of the page."""

    def __init__(self, page):
        self.families = {}
        assert page.endswith("\n"), "the last line does not end"
        for number, line in enumerate(page[:-1].split("\n"), 1):
            try:
                self._read(line)
            except AssertionError as error:
                raise AssertionError(f"line {number}: {line!r}: {error}") from None
        for name, (kind, samples) in self.families.items():
            if kind == "histogram":
                check_histograms(name, samples)

    def _read(self, line):
        if line.startswith("# HELP "):
            name, _, text = line[7:].partition(" ")
            assert re.fullmatch(FAMILY_NAME, name) and text, "HELP without a name or a text"
            assert name not in self.families, "a family comes twice"
            self.families[name] = (None, {})
        elif line.startswith("# TYPE "):
            name, kind = line[7:].split(" ")
            assert name == self._last() and self.families[name] == (None, {}), "TYPE does not follow its HELP"
            assert kind in TYPES, "unknown type"
            self.families[name] = (kind, {})
        else:
            self._sample(line)

    def _last(self):
        return next(reversed(self.families), None)

    def _sample(self, line):
        match = SAMPLE.fullmatch(line)
        assert match, "not a sample"
        name, text, value = match.groups()
        family = self._last()
        kind, samples = self.families[family]
        suffix = name.removeprefix(family)
        assert name.startswith(family) and suffix in (("_bucket", "_sum", "_count") if kind == "histogram" else ("",)), \
            f"not of the family {family}"
        assert kind != "counter" or name.endswith("_total"), "a counter that does not end in _total"
        key = (name, frozenset(read_labels(text or "")))
        assert key not in samples, "the same series twice"
        samples[key] = float(value)
        assert kind != "counter" or samples[key] >= 0, "a negative counter"

    def value(self, name, **labels):
        """The one sample of this name with exactly these labels; 0 if there is none."""
        family = self._family(name)
        return family[1].get((name, frozenset(labels.items())), 0.0)

    def sum(self, name, **labels):
        """The sum over all samples of this name that have these labels."""
        wanted = set(labels.items())
        return sum(value for (sample, have), value in self._family(name)[1].items() if sample == name and wanted <= have)

    def series(self, name):
        """The label dicts of all samples of this name."""
        return [dict(have) for (sample, have) in self._family(name)[1] if sample == name]

    def _family(self, name):
        for suffix in ("", "_bucket", "_sum", "_count"):
            if name.endswith(suffix) and name.removesuffix(suffix) in self.families:
                return self.families[name.removesuffix(suffix)]
        raise AssertionError(f"no family {name}; there are {', '.join(self.families)}")


def read_labels(text):
    """Label pairs; fails on anything between or around them."""
    position, pairs = 0, []
    while position < len(text):
        match = LABEL.match(text, position)
        assert match, f"bad labels at {text[position:]!r}"
        pairs.append((match[1], match[2].replace('\\"', '"').replace("\\n", "\n").replace("\\\\", "\\")))
        position = match.end()
    assert len({name for name, _ in pairs}) == len(pairs), "a label comes twice"
    return pairs


def check_histograms(name, samples):
    """Buckets never fall, and +Inf equals the count."""
    histograms = {}
    for (sample, labels), value in samples.items():
        rest = frozenset(pair for pair in labels if pair[0] != "le")
        parts = histograms.setdefault(rest, {"buckets": []})
        if sample == name + "_bucket":
            parts["buckets"].append((float(dict(labels)["le"]), value))
        else:
            parts[sample.removeprefix(name)] = value
    for labels, parts in histograms.items():
        where = f"{name} {sorted(labels)}"
        bounds = [bound for bound, _ in parts["buckets"]]
        counts = [count for _, count in parts["buckets"]]
        assert bounds == sorted(bounds) and bounds[-1] == float("inf"), f"{where}: bounds {bounds}"
        assert counts == sorted(counts), f"{where}: falling buckets {counts}"
        assert counts[-1] == parts["_count"], f"{where}: +Inf is {counts[-1]}, _count {parts['_count']}"
        assert "_sum" in parts, f"{where}: no _sum"
