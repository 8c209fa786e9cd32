// The page's state and how it stays fresh: an event stream for the chosen model's routing, and a look every few
// seconds at what changes more slowly.

import {LIMIT_PSI, MIN_LABELLED, accuracyBefore, alarmsOf, hasMoved, otherLayers, quiet} from "/ui/alarms.js";
import {ask, events, json, whenToken} from "/ui/ask.js";
import {bars, cells, chance, counted, element, heatMap, histogram, lines, number, percent, seconds} from "/ui/charts.js";
import {modelIn} from "/ui/given.js";
import {Speak} from "/ui/speak.js";
import {TryIt, appeal} from "/ui/tryit.js";
import {Worth} from "/ui/worth.js";

const SLOW_MS = 4000, AGAIN_MS = 3000, HISTORY = 150, LOOKED_AT = 32;
const $ = (id) => document.getElementById(id);

const state = {model: null, layer: 0, window: "1m", live: null, document: null, models: [], before: null, first: null,
  stop: null, frames: [], spread: {latency: [], rows: []}};
const history = {};
const OF_LAYER = ["gate entropy", "usage entropy", "margin", "drift", "accuracy", "lowest accuracy"];

// ---- fetching ----

function modelPath(rest = "") {
  return `/v2/models/${encodeURIComponent(state.model)}${rest}`;
}

async function repository() {
  try {
    return await json("/v2/repository/index", {method: "POST", body: "{}"});
  } catch {
    const {models} = await json("/v1/models");
    return models.map((name) => ({name, state: "READY"}));
  }
}

// ---- models ----

function drawModels() {
  const names = new Map();
  for (const entry of state.models) {
    const known = names.get(entry.name);
    if (!known || entry.state === "READY") names.set(entry.name, entry);
  }
  const list = $("models"), focused = document.activeElement?.dataset?.model;
  list.replaceChildren(...[...names.values()].map((entry) => element("li", {}, element("button", {
    type: "button", "data-model": entry.name, "aria-current": String(entry.name === state.model),
    disabled: entry.state !== "READY", onclick: () => choose(entry.name)}, entry.name),
    ...(entry.state === "READY" ? [] : [element("span", {class: "hint"}, ` ${entry.state.toLowerCase()}${entry.reason ? `: ${entry.reason}` : ""}`)]))));
  if (focused) list.querySelector(`[data-model="${CSS.escape(focused)}"]`)?.focus();
}

function choose(name) {
  if (name === state.model) return;
  Object.assign(state, {model: name, layer: 0, live: null, document: null});
  for (const key of Object.keys(history)) delete history[key];
  location.hash = encodeURIComponent(name);
  drawModels();
  listen();
  slow();
  openTrial(name);
}

// A language model says how long its texts may be, and is spoken to.
async function openTrial(name) {
  speak.close();
  const {max_model_len: most, capabilities} = await json(`/v1/models/${encodeURIComponent(name)}`).catch(() => ({}));
  if (name !== state.model) return;
  if (capabilities?.includes("completion")) speak.open(name, most).catch((error) => speak.fail(error));
  else tryIt.open(name);
}

// ---- live routing ----

// By fetch(), since an EventSource can send no token.
async function listen() {
  state.stop?.abort();
  const {signal} = state.stop = new AbortController();
  const path = modelPath(`/routing/live?window=${state.window}`);
  while (!signal.aborted) {
    try {
      for await (const event of events(await ask(path, {signal}))) {
        if (signal.aborted) return;
        state.live = event;
        connected();
        requestAnimationFrame(drawLive);
      }
      lost();
    } catch (error) {
      if (!signal.aborted) lost(error);
    }
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
  }
}

function connected() {
  $("connection").textContent = "live";
  $("connection").className = "";
}

// A TypeError is all that browsers say of a server that is not there.
function lost(error) {
  $("connection").textContent = error && !(error instanceof TypeError) ? error.message : "no connection; trying again";
  $("connection").className = "lost";
}

function remember(key, value) {
  const points = history[key] ??= [];
  points.push(value ?? null);
  if (points.length > HISTORY) points.shift();
  return points;
}

function drawLayers() {
  const select = $("layer"), names = state.live.layers.map((layer) => layer.name);
  if (select.options.length !== names.length || names.some((name, i) => select.options[i].text !== name))
    select.replaceChildren(...names.map((name, i) => element("option", {value: i}, name)));
  state.layer = Math.min(state.layer, Math.max(0, names.length - 1));
  select.value = state.layer;
  for (const span of document.querySelectorAll(".layer-name")) span.textContent = names[state.layer] ?? "";
}

function drawLive() {
  const began = performance.now(), live = state.live;
  if (!live) return; // another model was chosen since
  drawLayers();
  const layer = live.layers[state.layer];
  heatMap($("heat"), live.layers, live.layers.length > 1 ? state.layer : -1);
  const left = live.layers_left_out ? ` ${live.layers_left_out} layers do not fit in here.` : "";
  $("heat-hint").textContent = live.rows
    ? `${counted(live.rows, "row")} in ${Math.round(live.seconds)} s. A line for each layer, a cell for each expert; the stronger, the larger its share of ` +
      `${layer?.of === "weight" ? "the combine weight" : "the selections"}.${left}`
    : "No rows in this window. Send some, or try one above.";
  $("heat").setAttribute("aria-label", layer ? `Shares of ${layer.share.length} experts in ${live.layers.length} layers; ` +
    `${layer.name}: largest ${percent(Math.max(...layer.share))}, ${layer.unused} unused` : "no layers");
  remember("gate entropy", live.rows ? layer?.gate_entropy_bits : null);
  remember("usage entropy", live.rows ? layer?.usage_entropy_bits : null);
  remember("margin", live.rows ? layer?.margin : null);
  drawTime();
  state.frames.push(performance.now() - began);
}

function under(event) {
  const canvas = $("heat"), box = canvas.getBoundingClientRect(), layers = state.live?.layers ?? [];
  const widest = Math.max(1, ...layers.map((layer) => layer.share.length));
  const y = Math.floor((event.clientY - box.top) / box.height * layers.length);
  const x = Math.floor((event.clientX - box.left) / box.width * widest);
  return {layer: layers[y], y, x};
}

$("heat").addEventListener("pointermove", (event) => {
  const {layer, x} = under(event);
  $("heat-under").textContent = layer && x < layer.share.length ? `${layer.name}, expert ${x}: ${percent(layer.share[x], 2)}` : "";
});
$("heat").addEventListener("click", (event) => chooseLayer(under(event).y));
$("heat").addEventListener("keydown", (event) => {
  const step = {ArrowUp: -1, ArrowDown: 1}[event.key];
  if (step) { chooseLayer(state.layer + step); event.preventDefault(); }
});

function forgetLayer() {
  for (const key of OF_LAYER) delete history[key];
}

function chooseLayer(index) {
  if (!state.live?.layers[index]) return;
  state.layer = index;
  forgetLayer();
  drawLive();
  slow();
}

// ---- what changes slowly: the chosen layer in full, and the server ----

async function routingDocument() {
  const name = state.live?.layers[state.layer]?.name;
  const layer = name === undefined ? "" : `&layer=${encodeURIComponent(name)}`;
  return json(modelPath(`/routing?window=${state.window}&include=classes,pairs,ranks${layer}`));
}

// Labels are judged against what was so before the window, which the window `all` has not.
async function sinceLoad(layer) {
  if (state.window === "all" || !layer.experts.some((e) => e.labelled)) return null;
  return (await json(modelPath(`/routing?window=all&layer=${encodeURIComponent(layer.name)}`))).layers[0];
}

// Prometheus' text: {name: [{labels, value}]}
function parseMetrics(text) {
  const families = {};
  for (const line of text.split("\n")) {
    const match = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (!match) continue;
    const labels = {};
    for (const [, key, value] of (match[2] ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) labels[key] = value;
    (families[match[1]] ??= []).push({labels, value: Number(match[3])});
  }
  return families;
}

function total(families, name, where = () => true) {
  return (families[name] ?? []).filter((s) => s.labels.model === state.model && where(s.labels)).reduce((sum, s) => sum + s.value, 0);
}

// What a histogram has grown by between two looks: [[upper end, count]], rising.
function growth(now, before, name) {
  const upTo = new Map();
  for (const [families, sign] of [[now, 1], [before, -1]])
    for (const {labels, value} of families[`${name}_bucket`] ?? [])
      if (labels.model === state.model) upTo.set(labels.le, (upTo.get(labels.le) ?? 0) + sign * value);
  const sorted = [...upTo].map(([le, count]) => [le === "+Inf" ? Infinity : Number(le), count]).sort((a, b) => a[0] - b[0]);
  return sorted.map(([end, count], i) => [end, count - (i ? sorted[i - 1][1] : 0)]);
}

// The upper end of the range that holds the q-quantile.
function quantile(parts, q) {
  const all = parts.reduce((sum, [, count]) => sum + count, 0);
  let seen = 0;
  return all ? parts.find(([, count]) => (seen += count) >= q * all)[0] : null;
}

function tile(name, value) {
  return element("div", {}, element("b", {}, value), element("span", {}, name));
}

function startOf(families) {
  return families.process_start_time_seconds?.[0]?.value;
}

// Rates are of two looks at one model: at the first there are none, and those of the model before are gone.
function drawServing(now) {
  const before = state.before?.model === state.model ? state.before : null, time = before && (now.at - before.at) / 1000;
  const rate = (name, where) => before && Math.max(0, total(now, name, where) - total(before, name, where)) / time;
  const latest = before ? growth(now, before, "moed_request_seconds") : [], p50 = quantile(latest, 0.5), p99 = quantile(latest, 0.99);
  const requests = rate("moed_requests_total"), batches = rate("moed_batch_rows_count"), queue = total(now, "moed_queue_rows");
  if (before) for (const [key, value] of Object.entries({requests, p50, p99, queue})) remember(key, value);
  const broken = total(now, "moed_nonfinite_rows_total"), memory = now.process_resident_memory_bytes?.[0]?.value;
  $("tiles").replaceChildren(tile("requests/s", number(requests, 1)), tile("rows/s", number(rate("moed_rows_total"), 1)),
    tile("median latency up to", seconds(p50)), tile("p99 up to", seconds(p99)), tile("rows waiting", number(queue, 0)),
    tile("rows a batch", batches ? number(rate("moed_batch_rows_sum") / batches, 1) : "–"),
    tile("errors/s", number(rate("moed_requests_total", (labels) => labels.code >= "400"), 2)),
    ...(broken ? [tile("rows without a finite answer", number(broken, 0))] : []),
    ...(memory ? [tile("memory of the server", `${Math.round(memory / 1e6)} MB`)] : []));
  state.before = Object.assign(now, {model: state.model});
  if (state.first?.model !== state.model || startOf(state.first) !== startOf(now)) state.first = now;
  state.spread = {latency: growth(now, state.first, "moed_request_seconds"), rows: growth(now, state.first, "moed_batch_rows")};
}

function figure(name, value, bad = false) {
  return [element("dt", {}, name), element("dd", bad ? {class: "bad"} : {}, value)];
}

function drift(name, compared, alarming) {
  if (!compared) return [];
  const sure = compared.p_value === null ? "too few rows to say" : chance(compared.p_value);
  return figure(name, `PSI ${number(compared.psi)}, ${number(compared.js_bits)} bits, ${sure}`, alarming && hasMoved(compared));
}

// Experts that an administrator has taken out of service: who, when and why.
function quarantine(layer) {
  return (layer.quarantine ?? []).flatMap((entry) => figure(`expert ${entry.expert} is in quarantine`,
    `${entry.reason || "no reason given"} (${entry.by}, ${new Date(entry.since * 1000).toLocaleString("en")})`));
}

function drawAlarms(alarms, layer, before, others) {
  const count = alarms.length + others.size, summary = count ? counted(count, "alarm") : quiet(layer, before);
  if ($("alarm-summary").textContent !== summary) $("alarm-summary").textContent = summary;
  $("alarms").classList.toggle("raised", count > 0);
  $("alarm-list").replaceChildren(...alarms.map((alarm) => element("li", {}, element("b", {}, alarm.kind), ` ${alarm.text}`)),
    ...[...others].map(([name, kind]) => element("li", {}, element("b", {}, kind), " in ", element("button", {type: "button", class: "action",
      onclick: () => chooseLayer(state.live?.layers.findIndex((one) => one.name === name))}, `layer ${name}`))));
}

// Accuracies of the experts that came first for labelled rows, and what they were before.
function drawQuality(layer, before, notes) {
  const judged = layer.experts.filter((e) => e.labelled), enough = judged.filter((e) => e.labelled >= MIN_LABELLED);
  const rows = judged.reduce((sum, e) => sum + e.labelled, 0);
  $("quality").hidden = !rows;
  remember("accuracy", rows ? judged.reduce((sum, e) => sum + e.accuracy * e.labelled, 0) / rows : null);
  remember("lowest accuracy", enough.length ? Math.min(...enough.map((e) => e.accuracy)) : null);
  if (!rows) return;
  const hidden = bars($("accuracies"), judged.map((e) => ({name: String(e.index), value: e.accuracy,
    reference: before[layer.experts.indexOf(e)], note: notes.get(e.index), pale: e.labelled < MIN_LABELLED})), {top: 1, lowest: true});
  $("quality-hint").textContent = `How often the answer was right, by the expert that came first, of ${counted(rows, "row")} with labels` +
    `${before.some((value) => value !== null) ? "; the mark is its accuracy before this window" : ""}.` +
    `${enough.length < judged.length ? ` Pale: of fewer than ${MIN_LABELLED}.` : ""}${hidden > 0 ? ` The lowest; ${hidden} more are in the table.` : ""}`;
}

function drawLayer(layer, before, notes) {
  const weighted = layer.top_k === layer.experts.length;
  $("shares-hint").textContent = `Share of ${weighted ? "the combine weight (every expert serves every row)" : "the selections"}` +
    `${layer.experts.some((e) => e.reference_share !== undefined) ? "; the mark is the reference of the checkpoint" : ""}.`;
  const rows = layer.experts.map((e) => ({name: String(e.index), value: weighted ? e.weight_share : e.share, reference: e.reference_share,
    note: notes.get(e.index)}));
  const hidden = bars($("shares"), rows);
  if (hidden > 0) $("shares-hint").textContent += ` The largest; ${hidden} more are in the table.`;
  const quality = layer.experts.some((e) => e.labelled);
  const head = ["expert", "rows", "share", "weight", "probability", "first", ...(quality ? ["accuracy"] : []), "idle"];
  $("shares-table").replaceChildren(
    element("thead", {}, element("tr", {}, ...head.map((name) => element("th", {scope: "col"}, name)))),
    element("tbody", {}, ...layer.experts.map((e) => element("tr", {}, element("th", {scope: "row"}, String(e.index)),
      ...[e.selected.toLocaleString("en"), percent(e.share), percent(e.weight_share), percent(layer.rows ? e.probability / layer.rows : null),
        e.top1.toLocaleString("en"), ...(quality ? [percent(e.accuracy)] : []),
        e.idle_seconds === null ? "never used" : seconds(e.idle_seconds)].map((text) => element("td", {}, text))))));
  const mean = (value, digits) => number(layer.rows ? value : null, digits);
  $("figures").replaceChildren(...quarantine(layer), ...figure("rows", layer.rows.toLocaleString("en")), ...figure("experts, of which a row takes", `${layer.experts.length}, ${layer.top_k}`),
    ...figure("entropy of usage", `${mean(layer.usage_entropy_bits)} of ${number(Math.log2(layer.experts.length))} bits`),
    ...figure("entropy of the gate", `${mean(layer.gate_entropy_bits)} bits`), ...figure("margin", mean(layer.margin)),
    ...figure("effective experts", mean(layer.effective_experts, 2)),
    ...figure("imbalance", `${mean(layer.imbalance, 2)} (weight ${mean(layer.weight_imbalance, 2)})`),
    ...figure("unused", String(layer.unused)), ...figure("dying", layer.dying?.length ? layer.dying.join(", ") : "none", layer.dying?.length > 0),
    ...(layer.dropped !== undefined ? figure("dropped", layer.dropped.toLocaleString("en")) : []),
    ...drift("drift from the reference", layer.drift?.reference, true), ...drift("drift from the window before", layer.drift?.previous, false));
}

const CLASSES = {
  predicted: "Rows of each predicted class by the expert that came first, as a share of the class, since the load.",
  truth: "Rows of each true class by the expert that came first, as a share of the class, of all rows with labels since the load.",
  accuracy: "How often the answer was right, by the true class and the expert that came first, since the load; the stronger, the more of the class goes wrong there.",
  log_loss: "Mean of -ln p of the true class, in nats, by that class and the expert that came first, since the load: 0 is right and sure of it.",
  ece: "How far confidence is from accuracy (expected calibration error), by the true class and the expert that came first, since the load. With few rows it is large by chance; point at a cell for its rows.",
};
// The member of classes.truth that each of them needs.
const NEEDS = {truth: "counts", accuracy: "correct", log_loss: "log_loss", ece: "ece"};

// What is chosen, or what there is: true classes are known once labels came.
function classesOf(classes) {
  const of = $("classes-of");
  for (const option of of.options)
    option.disabled = option.value !== "predicted" && !classes.truth?.[NEEDS[option.value]];
  if (of.selectedOptions[0].disabled) of.value = "predicted";
  return of.value;
}

function drawClasses(layer) {
  const classes = layer.classes, most = 40;
  $("classes-section").hidden = $("worth-section").hidden = !classes?.counts?.length;
  if ($("classes-section").hidden) return;
  const what = classesOf(classes), table = what === "predicted" ? classes : classes.truth, {counts, mi_bits: bits} = table;
  const names = classes.labels ?? counts[0].map((_, c) => String(c));
  const columns = names.map((_, c) => counts.reduce((sum, row) => sum + row[c], 0));
  const part = (rows, c) => (columns[c] ? rows / columns[c] : 0);
  const cell = {
    predicted: (rows, e, c) => ({text: columns[c] ? percent(part(rows, c), 0) : "–", strength: part(rows, c)}),
    accuracy: (rows, e, c) => ({text: rows ? percent(table.correct[e][c] / rows, 0) : "–", strength: part(rows - table.correct[e][c], c)}),
    log_loss: (rows, e, c) => ({text: rows ? table.log_loss[e][c].toFixed(2) : "–",
      strength: part(rows, c) * Math.min(1, table.log_loss[e][c] / Math.log(names.length))}),
    ece: (rows, e, c) => ({text: rows ? percent(table.ece[e][c], 0) : "–", strength: part(rows, c) * table.ece[e][c]}),
  };
  cell.truth = cell.predicted;
  $("classes-hint").textContent = CLASSES[what];
  cells($("classes"), "class", layer.experts.map((e) => `expert ${e.index}`).slice(0, most), names.map((name, c) => ({name,
    values: counts.slice(0, most).map((row, e) => ({...cell[what](row[c], e, c), title: `${row[c].toLocaleString("en")} rows`}))})));
  worth.show(state.model, layer.name, names);
  $("classes-mi").textContent = bits === undefined ? "" : `The expert tells ${number(bits)} bits of the ${what === "predicted" ? "" : "true "}class.`;
}

// Pairs and ranks are of all rows since the load, pairs of the busiest experts of those since these were chosen. The lift says how
// many times as often as by chance a pair is chosen.
function drawPairs(layer) {
  const busiest = layer.pairs_of, ranks = layer.ranks ?? [];
  const routed = busiest ? busiest.rows : ranks.reduce((sum, [first]) => sum + first, 0);
  const of = new Map(busiest ? busiest.experts : ranks.map((row, i) => [layer.experts[i].index, row.reduce((a, b) => a + b, 0)]));
  const pairs = [...(layer.pairs ?? [])].sort((a, b) => b[2] - a[2]).slice(0, 20);
  $("pairs-section").hidden = layer.top_k < 2 || layer.top_k === layer.experts.length || !pairs.length;
  if ($("pairs-section").hidden) return;
  $("pairs-hint").textContent = busiest ? `Among the ${busiest.experts.length} busiest of ${layer.experts.length} experts, since these were chosen`
    : "Since the load";
  cells($("pairs"), "experts", ["rows", "share of rows", "lift"], pairs.map(([i, j, rows]) => ({name: `${i} and ${j}`,
    values: [{text: rows.toLocaleString("en"), strength: 0}, {text: routed ? percent(rows / routed) : "–", strength: rows / pairs[0][2]},
      {text: routed ? number(rows * routed / (of.get(i) * of.get(j)), 2) : "–", strength: 0}]})));
}

function drawTime() {
  const of = (key) => history[key] ?? [];
  $("time").replaceChildren(
    lines("Entropy", "bits", [{name: "gate", points: of("gate entropy")}, {name: "usage", points: of("usage entropy")}], (v) => number(v)),
    lines("Margin", "", [{points: of("margin")}], (v) => number(v), {top: 1}),
    lines("Drift", "PSI", [{points: of("drift")}], (v) => number(v), {top: 1.5 * LIMIT_PSI, limit: LIMIT_PSI}),
    ...(of("accuracy").some((point) => point !== null) ? [lines("Accuracy", "", [{name: "all experts", points: of("accuracy")},
      {name: "lowest", points: of("lowest accuracy")}], (v) => percent(v), {top: 1})] : []),
    lines("Requests per second", "", [{points: of("requests")}], (v) => number(v, 1)),
    lines("Latency", "", [{name: "p99", points: of("p99")}, {name: "median", points: of("p50")}], seconds),
    lines("Rows waiting", "", [{points: of("queue")}], (v) => number(v, 0)),
    histogram("Requests by latency", "request", state.spread.latency, seconds),
    histogram("Batches by their rows", "batch", state.spread.rows, (v) => number(v, 0)));
}

// What is looked at; an answer to an earlier choice is not drawn.
function chosen() {
  return JSON.stringify([state.model, state.layer, state.window]);
}

async function slow() {
  if (!state.model) return;
  const model = state.model, asked = chosen();
  try {
    const [document_, page] = await Promise.all([routingDocument(), ask("/metrics").then((reply) => reply.text())]);
    if (asked !== chosen()) return;
    const now = parseMetrics(page);
    now.at = performance.now();
    drawServing(now);
    const layer = document_.layers[0];
    $("alarms").hidden = !layer;
    if (!layer) return;
    const before = accuracyBefore(layer, await sinceLoad(layer));
    if (asked !== chosen()) return;
    state.document = document_;
    remember("drift", layer.drift?.reference?.psi);
    const alarms = alarmsOf(layer, before, hourBits(now, document_, layer)), notes = new Map(alarms.map(({expert, kind}) => [expert, kind]));
    drawAlarms(alarms, layer, before, otherLayers(now, model, document_.version, state.window, layer.name));
    drawLayer(layer, before, notes);
    drawQuality(layer, before, notes);
    drawClasses(layer);
    drawPairs(layer);
    tryIt.traffic(layer);
  } catch (error) { lost(error); }
}

// The entropy of the layer's usage in the last hour.
function hourBits(families, {model, version}, layer) {
  return families.moed_layer_usage_entropy_bits?.find(({labels}) => labels.model === model && labels.version === version &&
    labels.layer === layer.name && labels.window === "1h")?.value;
}

// The model that shows most; of equal ones, and beyond those that are looked at, the first.
async function mostAppealing(names) {
  const appeals = await Promise.all(names.slice(0, LOOKED_AT).map((name) => json(`/v2/models/${encodeURIComponent(name)}`).then(appeal, () => 0)));
  return names[appeals.indexOf(Math.max(...appeals))];
}

function readyModels() {
  return [...new Set(state.models.filter((entry) => entry.state === "READY").map((entry) => entry.name))];
}

async function refreshModels() {
  try {
    state.models = await repository();
    drawModels();
    const before = state.model;
    if (!state.models.some((entry) => entry.name === before)) {
      const wanted = modelIn(location.hash), ready = readyModels();
      const name = ready.includes(wanted) ? wanted : await mostAppealing(ready);
      if (name && state.model === before) choose(name); // nobody was faster
    }
  } catch (error) { lost(error); }
}

// ---- beginning ----

const tryIt = new TryIt($("try-body"), () => setTimeout(slow, 50));
const worth = new Worth($("worth-section"));
const speak = new Speak($("try-body"), () => setTimeout(slow, 50));

$("choice").addEventListener("submit", (event) => event.preventDefault());
$("window").addEventListener("change", (event) => { state.window = event.target.value; forgetLayer(); listen(); slow(); });
$("classes-of").addEventListener("change", () => state.document && drawClasses(state.document.layers[0]));
$("layer").addEventListener("change", (event) => chooseLayer(Number(event.target.value)));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => state.live && drawLive());
addEventListener("resize", () => state.live && drawLive());
// Back and Forward, a link, an edited address.
addEventListener("hashchange", () => {
  const wanted = modelIn(location.hash);
  if (readyModels().includes(wanted)) choose(wanted);
});
window.moed = state; // for tests and for the curious

async function begin() {
  json("/v2").then((server) => { $("version").textContent = server.version; }).catch(() => {});
  await refreshModels();
}

// What was refused without it is asked for again.
whenToken(async () => {
  const before = state.model;
  await begin();
  if (!before || before !== state.model) return;
  listen();
  slow();
  openTrial(state.model);
});
await begin();
setInterval(refreshModels, 3 * SLOW_MS);
setInterval(slow, SLOW_MS);
