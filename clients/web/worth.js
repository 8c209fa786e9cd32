// What each expert is worth: a file that `moectl ablate MODEL rows.npz --json` has written, drawn as experts by classes.
// The file stays in the browser.

import {cells, percent} from "/ui/charts.js";

const MOST_BYTES = 16 << 20, MOST_EXPERTS = 40, MOST_CLASSES = 1000;

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

// What the file says, or why it is none that can be drawn.
export function readStudy(text) {
  const study = JSON.parse(text);
  const classes = study?.rows_by_class?.length;
  if (typeof study?.model !== "string" || !Array.isArray(study.layers) || !(classes >= 2 && classes <= MOST_CLASSES))
    throw new Error("this is not what `moectl ablate --json` writes: it has no model, layers or classes");
  const isOutcome = (one) => isNumber(one?.accuracy) && one.by_class?.length === classes;
  if (!isOutcome(study)) throw new Error("it does not say how the model answers with all experts");
  for (const layer of study.layers)
    for (const expert of layer.experts ?? [])
      for (const done of ["excluded", "silenced"])
        if (!isOutcome(expert[done]) && typeof expert[done]?.refused !== "string")
          throw new Error(`expert ${expert.index} of ${layer.name} has no result '${done}'`);
  return study;
}

// "+1.2", "−31.0": percentage points.
function points(value) {
  if (Math.abs(value) < 0.0005) return "0";
  return `${value < 0 ? "−" : "+"}${Math.abs(100 * value).toFixed(1)}`;
}

export class Worth {
  constructor(section) {
    this.section = section;
    this.studies = new Map(); // by model
    this.table = section.querySelector("table");
    this.said = section.querySelector("[role=status]");
    this.how = section.querySelector("select");
    const file = section.querySelector("input");
    file.addEventListener("change", () => file.files.length && this.read(file.files[0]));
    this.how.addEventListener("change", () => this.draw());
    section.addEventListener("dragover", (event) => event.preventDefault());
    section.addEventListener("drop", (event) => {
      event.preventDefault();
      if (event.dataTransfer.files.length) this.read(event.dataTransfer.files[0]);
    });
  }

  async read(file) {
    try {
      if (file.size > MOST_BYTES) throw new Error(`it is larger than ${MOST_BYTES >> 20} MB`);
      const study = readStudy(await file.text());
      this.studies.set(study.model, study);
      this.read_ = study.model;
      this.draw();
    } catch (error) {
      this.say(`${file.name}: ${error.message}`, true);
    }
  }

  say(text, bad = false) {
    this.said.textContent = text;
    this.said.className = bad ? "hint bad" : "hint";
  }

  // Of a model, one of its layers, and the names of its classes.
  show(model, layer, names) {
    Object.assign(this, {model, layer, names});
    this.draw();
  }

  draw() {
    const study = this.studies.get(this.model);
    const layer = study?.layers.find((one) => one.name === this.layer);
    this.table.replaceChildren();
    this.how.disabled = !layer;
    if (layer) this.drawLayer(study, layer);
    else if (study) this.say(`The file says nothing of ${this.layer}.`);
    else if (this.read_ !== undefined) this.say(`The file is about ${this.read_}, not about ${this.model}.`);
  }

  drawLayer(study, layer) {
    const experts = layer.experts.slice(0, MOST_EXPERTS), done = this.how.value;
    const lost = (expert, of) => expert[done].refused ? null : of(expert[done]) - of(study);
    const most = Math.max(0.01, ...experts.flatMap((expert) => expert[done].by_class ?? [])
      .map((right, i) => study.by_class[i % study.by_class.length] - right));
    const row = (name, of) => ({name, values: experts.map((expert) => {
      const change = lost(expert, of);
      return {text: change === null ? "refused" : points(change), strength: Math.max(0, -(change ?? 0)) / most};
    })});
    const changed = {name: "other answers", values: experts.map((expert) =>
      ({text: expert[done].refused ? "refused" : percent(expert[done].changed / study.rows), strength: 0}))};
    cells(this.table, "class", experts.map((expert) => `expert ${expert.index}`),
      [row("all", (one) => one.accuracy), changed, ...study.by_class.flatMap((right, c) =>
        right === null ? [] : [row(this.names?.[c] ?? String(c), (one) => one.by_class[c])])]);
    this.say(`Accuracy ${percent(study.accuracy)} over ${study.rows.toLocaleString("en")} rows; in percentage points, what it gains or ` +
      `loses with the expert ${done}.${layer.experts.length > MOST_EXPERTS ? ` The first ${MOST_EXPERTS} experts.` : ""}`);
  }
}
