// Charts in plain SVG and canvas. Everything from the server becomes text or a number, never HTML.

const SVG = "http://www.w3.org/2000/svg";

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") made.className = value;
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

export function shape(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

export function percent(value, digits = 1) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  return `${(100 * value).toFixed(digits)} %`;
}

export function number(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value !== 0 && Math.abs(value) < 10 ** -digits) return value.toExponential(1);
  return Math.abs(value) >= 1e5 ? Math.round(value).toLocaleString("en") : String(+value.toFixed(digits));
}

// Of classes, or parts of one; a lone number from 0 to 1 may be anything.
export function areProbabilities(values, labelled) {
  const sum = values.reduce((all, value) => all + value, 0);
  return values.every((value) => value >= 0 && value <= 1) && sum > 0 && (labelled || Math.abs(sum - 1) < 1e-3 && values.length > 1);
}

// The probability of a test. A server says 0 of what no double can hold.
export function chance(p) {
  return p < 1e-300 ? "p < 1e-300" : `p ${number(p, 4)}`;
}

// "1 row", "2,000 rows".
export function counted(count, what) {
  return `${count.toLocaleString("en")} ${count === 1 ? what : what.endsWith("ch") ? `${what}es` : `${what}s`}`;
}

export function seconds(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value < 1e-3) return `${(1e6 * value).toFixed(0)} µs`;
  return value < 1 ? `${(1e3 * value).toFixed(value < 0.01 ? 2 : 1)} ms` : `${value.toFixed(2)} s`;
}

// ---- layers x experts ----

function colour(name) {
  const text = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  return [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16));
}

// How strong a share of one of n experts is drawn: none is 0, an even share a half, all of it 1.
export function strength(share, n) {
  if (!(share > 0)) return 0;
  const relative = share * n;
  return relative <= 1 ? 0.5 * Math.sqrt(relative) : 0.5 + 0.5 * (n > 1 ? Math.log(relative) / Math.log(n) : 1);
}

// Lines between cells and the numbers of experts, where there is room for them.
function grid(context, layers, wide, high) {
  if (wide < 24 || high < 18) return;
  context.strokeStyle = getComputedStyle(document.documentElement).getPropertyValue("--card");
  context.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--text");
  context.lineWidth = 2;
  context.font = `${Math.min(high * 0.55, 14 * (window.devicePixelRatio || 1))}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  layers.forEach((layer, y) => layer.share.forEach((_, x) => {
    context.strokeRect(x * wide, y * high, wide, high);
    context.fillText(String(x), x * wide + 8, (y + 0.5) * high);
  }));
}

// One pixel for each expert, scaled up without smoothing: 64 x 256 cells take a few milliseconds.
export function heatMap(canvas, layers, chosen) {
  const width = Math.max(1, ...layers.map((layer) => layer.share.length));
  const height = Math.max(1, layers.length);
  const low = colour("--track"), high = colour("--accent"), void_ = colour("--card");
  const image = new ImageData(width, height);
  layers.forEach((layer, y) => {
    for (let x = 0; x < width; x++) {
      const at = 4 * (y * width + x), inside = x < layer.share.length;
      const part = inside ? strength(layer.share[x], layer.share.length) : 0;
      for (let c = 0; c < 3; c++)
        image.data[at + c] = inside ? low[c] + part * (high[c] - low[c]) : void_[c];
      image.data[at + 3] = 255;
    }
  });
  const ratio = window.devicePixelRatio || 1;
  const cell = Math.min(28, Math.max(4, 480 / height));
  const pixels = Math.round(canvas.clientWidth * ratio), lines = Math.round(height * cell * ratio);
  if (canvas.width !== pixels || canvas.height !== lines) {
    canvas.width = pixels;
    canvas.height = lines;
    canvas.style.height = `${height * cell}px`;
  }
  const small = heatMap.small || (heatMap.small = document.createElement("canvas"));
  small.width = width;
  small.height = height;
  small.getContext("2d").putImageData(image, 0, 0);
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, pixels, lines);
  grid(context, layers, pixels / width, cell * ratio);
  context.strokeStyle = getComputedStyle(document.documentElement).getPropertyValue("--second");
  context.lineWidth = 2 * ratio;
  if (chosen >= 0)
    context.strokeRect(ratio, chosen * cell * ratio + ratio, pixels - 2 * ratio, cell * ratio - 2 * ratio);
  return {width, height};
}

// ---- bars: a part for each expert, a tick where it is expected, a note on those that need a look ----

const BAR = 20, NAME = 46, NOTED = 76, VALUE = 62, MAX_BARS = 16;

// The noted ones first, then the largest (or the lowest).
function chosenBars(rows, lowest) {
  if (rows.length <= MAX_BARS) return rows;
  const order = (row) => (row.note ? -2 : 0) + (lowest ? row.value : -row.value);
  return [...rows].sort((a, b) => order(a) - order(b)).slice(0, MAX_BARS);
}

// rows: [{name, value, reference, note, pale}]; `top` is the value that fills the width, by default the largest. How many
// there was no room for.
export function bars(parent, rows, {top, lowest = false} = {}) {
  const shown = chosenBars(rows, lowest), name = shown.some((row) => row.note) ? NOTED : NAME;
  const width = parent.clientWidth || 420, most = top ?? Math.max(1e-9, ...shown.map((row) => Math.max(row.value, row.reference ?? 0)));
  const scale = (width - name - VALUE) / most;
  const svg = shape("svg", {viewBox: `0 0 ${width} ${shown.length * BAR}`, role: "img",
    "aria-label": shown.slice(0, 8).map((row) => `expert ${row.name}${row.note ? ` (${row.note})` : ""}: ${percent(row.value)}`).join(", ")});
  shown.forEach((row, i) => {
    const y = i * BAR;
    svg.append(shape("text", {x: 0, y: y + 14, class: row.note ? "name noted" : "name"}, row.note ? `${row.name} ${row.note}` : row.name),
      shape("rect", {x: name, y: y + 4, width: Math.max(0, row.value * scale), height: BAR - 8, class: row.note ? "bar noted" : row.pale ? "bar pale" : "bar"}),
      shape("text", {x: width, y: y + 14, "text-anchor": "end"}, percent(row.value)));
    if (row.reference !== undefined && row.reference !== null) {
      const x = name + row.reference * scale;
      svg.append(shape("line", {x1: x, x2: x, y1: y + 2, y2: y + BAR - 2, class: "tick"}));
    }
  });
  parent.replaceChildren(svg);
  return rows.length - shown.length;
}

// ---- a line over time ----

// `top` is the least that the height stands for, so that noise looks like noise; `limit` is drawn across.
export function lines(title, unit, series, format, {top: least = 1e-9, limit} = {}) {
  const width = 300, height = 80;
  const points = series.flatMap((one) => one.points.filter((p) => p !== null && Number.isFinite(p)));
  const top = Math.max(least, ...points), heightOf = (value) => height - 2 - (height - 8) * value / top;
  const last = series.map((one) => one.points.at(-1));
  const svg = shape("svg", {viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `${title}: ${series.map((one, i) => `${one.name || "now"} ${format(last[i])}`).join(", ")}`});
  svg.append(shape("line", {x1: 0, x2: width, y1: height - 1, y2: height - 1, class: "axis"}));
  if (limit) svg.append(shape("line", {x1: 0, x2: width, y1: heightOf(limit), y2: heightOf(limit), class: "limit"}));
  series.forEach((one, index) => {
    const step = width / Math.max(1, one.points.length - 1);
    let path = "", pen = "M";
    one.points.forEach((point, i) => {
      if (point === null || !Number.isFinite(point)) { pen = "M"; return; }
      path += `${pen}${(i * step).toFixed(1)},${heightOf(point).toFixed(1)}`;
      pen = "L";
    });
    svg.append(shape("path", {d: path || "M0,0", class: index ? "line second" : "line"}));
  });
  const now = series.flatMap((one, i) => [i ? ", " : "", element("span", {class: series.length > 1 ? `of-line${i ? " second" : ""}` : ""}, one.name ?? ""),
    `${one.name ? " " : ""}${format(last[i])}`]);
  return element("div", {}, element("h3", {}, title), svg, element("p", {}, ...now, unit ? ` ${unit}` : "", limit ? `, limit ${format(limit)}` : ""));
}

// ---- how many in each range ----

const RANGES = 8;

// parts: [[upper end, count]], rising; drawn from the first range that has any to the last. `what` is counted.
export function histogram(title, what, parts, format) {
  const width = 300, height = 80, all = parts.reduce((sum, [, count]) => sum + count, 0);
  const named = parts.map(([end, count], i) => ({count, name: end === Infinity ? `more than ${format(parts[i - 1]?.[0] ?? 0)}` : `up to ${format(end)}`}));
  const first = named.findIndex(({count}) => count), shown = all ? named.slice(first, named.findLastIndex(({count}) => count) + 1) : [];
  const most = Math.max(1, ...shown.map(({count}) => count)), step = width / Math.max(RANGES, shown.length);
  const svg = shape("svg", {viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `${title}: ${shown.map(({name, count}) => `${name} ${percent(count / all, 0)}`).join(", ") || "none yet"}`});
  svg.append(shape("line", {x1: 0, x2: width, y1: height - 1, y2: height - 1, class: "axis"}));
  shown.forEach(({name, count}, i) => {
    const bar = shape("rect", {x: i * step + 1, width: step - 2, y: height - 1 - (height - 8) * count / most, height: (height - 8) * count / most, class: "bar"});
    bar.append(shape("title", {}, `${name}: ${counted(count, what)}`));
    svg.append(bar);
  });
  const peak = shown.find(({count}) => count === most);
  return element("div", {}, element("h3", {}, title), svg, element("p", {}, all ? `${counted(all, what)}; ` +
    `${shown.length > 1 ? `${shown[0].name} … ${shown.at(-1).name}, most ` : ""}${peak.name} (${percent(peak.count / all, 0)})` : "none yet"));
}

// ---- a table whose cells are shaded ----

export function cells(table, corner, columns, rows) {
  const [r, g, b] = colour("--accent");
  const head = element("tr", {}, element("th", {scope: "col"}, corner),
    ...columns.map((name) => element("th", {scope: "col"}, name)));
  const body = rows.map((row) => element("tr", {}, element("th", {scope: "row"}, row.name), ...row.values.map((value) => {
    const cell = element("td", value.title ? {title: value.title} : {}, value.text);
    cell.style.background = `rgba(${r}, ${g}, ${b}, ${(0.5 * value.strength).toFixed(3)})`;
    return cell;
  })));
  table.replaceChildren(element("thead", {}, head), element("tbody", {}, ...body));
}
