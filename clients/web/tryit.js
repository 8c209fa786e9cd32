// A request made by hand: drawn, filled into a form made of the metadata, or written as JSON. The answer comes with
// its routing, beside what all traffic does.

import {json} from "/ui/ask.js";
import {areProbabilities, element, percent, number} from "/ui/charts.js";
import {samples} from "/ui/samples.js";

const MAX_FIELDS = 64, MAX_ANSWERS = 10, MAX_EXPERTS = 12, SIDE = 28, BRIGHT = 255;

function elements(shape) {
  return shape.slice(1).reduce((product, size) => product * size, 1);
}

// A square of one channel, as an image or as a line of numbers.
function isPicture(input) {
  return input.datatype === "FP32" && elements(input.shape) === SIDE * SIDE;
}

// How much of what there is a first look at a model shows: something that anybody can draw, a character best of all; then
// any picture; then forms and numbers.
export function appeal({inputs, outputs}) {
  if (inputs.length !== 1 || !isPicture(inputs[0])) return 0;
  return outputs.some(({parameters}) => parameters?.labels?.every((label) => label.length === 1)) ? 2 : 1;
}

// ---- ways to fill an input; each has an element and data() ----

class Picture {
  constructor(input) {
    this.input = input;
    this.canvas = element("canvas", {class: "draw", width: SIDE, height: SIDE, "aria-label": `Draw ${input.name} with the pointer`, role: "img"});
    this.context = this.canvas.getContext("2d", {willReadFrequently: true});
    this.clear();
    this.canvas.addEventListener("pointerdown", (event) => { this.canvas.setPointerCapture(event.pointerId); this.last = this.at(event); this.draw(event); });
    this.canvas.addEventListener("pointermove", (event) => event.buttons && this.last && this.draw(event));
    this.canvas.addEventListener("pointerup", () => { this.last = null; }); // a line begins on the canvas
    const choice = element("select", {"aria-label": "A sample", onchange: () => this.show(choice.value)},
      element("option", {value: ""}, "a sample …"), ...Object.keys(samples).map((name) => element("option", {}, name)));
    this.element = element("div", {}, this.canvas, element("div", {class: "row"}, choice,
      element("button", {type: "button", class: "action", onclick: () => { this.clear(); choice.value = ""; }}, "Clear")));
  }

  at(event) {
    const box = this.canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width * SIDE, (event.clientY - box.top) / box.height * SIDE];
  }

  draw(event) {
    const [x, y] = this.at(event), context = this.context;
    Object.assign(context, {strokeStyle: "white", lineWidth: 2.4, lineCap: "round"});
    context.beginPath();
    context.moveTo(...this.last);
    context.lineTo(x + 0.01, y);
    context.stroke();
    this.last = [x, y];
  }

  clear() {
    this.context.fillStyle = "black";
    this.context.fillRect(0, 0, SIDE, SIDE);
  }

  show(name) {
    this.clear();
    samples[name]?.(this.context);
    this.canvas.dispatchEvent(new Event("sample", {bubbles: true}));
  }

  data() {
    const pixels = this.context.getImageData(0, 0, SIDE, SIDE).data;
    return Array.from({length: SIDE * SIDE}, (_, i) => Math.min(BRIGHT, pixels[4 * i]));
  }
}

class Fields {
  constructor(input) {
    const categories = input.parameters?.categories, words = input.parameters?.words;
    const count = elements(input.shape);
    this.inputs = Array.from({length: count}, (_, i) => words
      ? element("select", {}, ...words.map((word) => element("option", {value: word}, word)))
      : element("input", {type: "number", value: 0, step: categories ? 1 : "any", min: categories ? 0 : undefined,
        max: categories ? categories - 1 : undefined, required: true}));
    this.words = Boolean(words);
    this.integers = input.datatype.startsWith("INT");
    this.element = element("div", {class: "fields"}, ...this.inputs.flatMap((field, i) => {
      field.id = `try-${input.name}-${i}`;
      return [element("label", {for: field.id}, count > 1 ? `${input.name} ${i}` : input.name), field];
    }));
  }

  data() {
    if (this.words) return this.inputs.map((field) => field.value);
    return this.inputs.map((field) => (this.integers ? Math.round(Number(field.value)) : Number(field.value)));
  }
}

class Text {
  constructor(input) {
    const count = elements(input.shape);
    this.area = element("textarea", {"aria-label": `${input.name}: ${count} numbers, a JSON list`, spellcheck: "false"},
      JSON.stringify(Array.from({length: Math.min(count, 100000)}, () => 0)));
    this.element = element("div", {}, element("p", {class: "hint"}, `${input.name}: ${count} numbers`), this.area);
  }

  data() {
    return JSON.parse(this.area.value).flat(Infinity);
  }
}

function filler(input) {
  if (isPicture(input)) return new Picture(input);
  return elements(input.shape) <= MAX_FIELDS ? new Fields(input) : new Text(input);
}

// ---- answers ----

function meter(part, second = false) {
  const bar = element("i");
  bar.style.width = `${100 * Math.max(0, Math.min(1, part))}%`;
  return element("div", {class: second ? "meter second" : "meter"}, bar);
}

function answerRows(output, labels) {
  const values = output.data.map((value, i) => ({name: labels?.[i] ?? String(i), value}));
  const shown = values.length > 1 ? [...values].sort((a, b) => b.value - a.value).slice(0, MAX_ANSWERS) : values;
  const isProbability = areProbabilities(output.data, Boolean(labels));
  return shown.flatMap(({name, value}, i) => [element("span", {class: i ? "" : "first"}, name),
    isProbability ? meter(value) : element("span"), element("output", {}, isProbability ? percent(value, 2) : number(value))]);
}

export class TryIt {
  constructor(parent, onAnswer) {
    Object.assign(this, {parent, onAnswer, shares: new Map()});
  }

  // What all traffic does in a layer, for the comparison; before the first row there is none.
  traffic(layer) {
    if (!layer.rows) return;
    const weighted = layer.top_k === layer.experts.length;
    this.shares.set(layer.name, new Map(layer.experts.map((e) => [e.index, weighted ? e.weight_share : e.share])));
  }

  async open(model) {
    this.model = model;
    this.shares.clear();
    this.parent.replaceChildren(element("p", {class: "hint"}, "…"));
    const path = `/v2/models/${encodeURIComponent(model)}`;
    let metadata;
    try {
      metadata = await json(path);
    } catch (error) {
      this.parent.replaceChildren(element("p", {class: "bad"}, error.message));
      return;
    }
    if (model !== this.model) return;
    this.metadata = metadata;
    this.fillers = metadata.inputs.map(filler);
    this.answer = element("div", {"aria-live": "polite"}, element("p", {class: "hint"}, "Draw or fill in something and send it."));
    const form = element("form", {onsubmit: (event) => { event.preventDefault(); this.send(path); }},
      ...this.fillers.map((one) => one.element), element("div", {class: "row"}, element("button", {class: "action main"}, "Send")));
    form.addEventListener("sample", () => this.send(path));
    this.parent.replaceChildren(element("div", {class: "try"}, form, this.answer));
  }

  async send(path) {
    try {
      const inputs = this.metadata.inputs.map((input, i) => ({name: input.name, datatype: input.datatype,
        shape: [1, ...input.shape.slice(1)], data: this.fillers[i].data()}));
      const outputs = this.metadata.outputs.map(({name}) => ({name}));
      const began = performance.now();
      const reply = await json(`${path}/infer`, {method: "POST", headers: {"Content-Type": "application/json"},
        body: JSON.stringify({inputs, outputs})});
      this.show(reply, performance.now() - began);
      this.onAnswer();
    } catch (error) {
      this.answer.replaceChildren(element("p", {class: "bad"}, error.message));
    }
  }

  show(reply, milliseconds) {
    const outputs = new Map(reply.outputs.map((output) => [output.name, output]));
    const parts = [];
    for (const {name, parameters} of this.metadata.outputs) {
      if (name.startsWith("routing.")) continue;
      parts.push(element("h3", {}, name), element("div", {class: "answers"}, ...answerRows(outputs.get(name), parameters?.labels)));
    }
    for (const [name, output] of outputs) {
      const layer = /^routing\.(.*)\.experts$/.exec(name)?.[1];
      if (layer) parts.push(...this.routing(layer, output, outputs.get(`routing.${layer}.weights`)));
    }
    parts.push(element("p", {class: "hint"}, `Answered in ${milliseconds.toFixed(1)} ms, as this browser saw it.`));
    this.answer.replaceChildren(...parts);
  }

  routing(layer, experts, weights) {
    const shares = this.shares.get(layer);
    const chosen = experts.data.map((index, i) => ({index, weight: weights.data[i]})).slice(0, MAX_EXPERTS);
    return [element("h3", {}, `Experts of ${layer}`), element("div", {class: "answers"}, ...chosen.flatMap(({index, weight}, i) => [
      element("span", {class: i ? "" : "first"}, index < 0 ? "dropped" : `expert ${index}`), meter(Math.abs(weight), true),
      element("output", {}, `${number(weight)}${shares?.has(index) ? `, of all traffic ${percent(shares.get(index), 0)}` : ""}`)]))];
  }
}
