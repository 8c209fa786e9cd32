// A language model, tried by hand: its answer streams, and every token shows which experts made it. A layers x experts
// map moves while it speaks.

import {ask, events, json} from "/ui/ask.js";
import {cells, element, heatMap, number, percent} from "/ui/charts.js";

const TOKENS = 100, TICK_MS = 40, FADING = 0.85, HUE = 137.5; // degrees from one expert's colour to the next: neighbours differ most
const FIRST_PROMPT = "And it came to pass";

// ---- the reply ----

function post(path, body, signal) {
  return ask(path, {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(body), signal});
}

// Parts of a character come as "bytes:\xe2\x80" in completions; chats have the bytes of all tokens.
function bytesOf(token, bytes) {
  if (bytes) return Uint8Array.from(bytes);
  if (!/^bytes:(\\x[0-9a-f]{2})+$/.test(token)) return new TextEncoder().encode(token);
  return Uint8Array.from(token.slice(6).split("\\x").slice(1), (hex) => parseInt(hex, 16));
}

// What an event says of its tokens: [{bytes, probability}]
function tokensOf({logprobs}) {
  if (logprobs?.content) return logprobs.content.map(({token, bytes, logprob}) => ({bytes: bytesOf(token, bytes), probability: Math.exp(logprob)}));
  return (logprobs?.tokens ?? []).map((token, i) => ({bytes: bytesOf(token), probability: Math.exp(logprobs.token_logprobs[i])}));
}

// Tokens, and for every row that was computed the experts of each layer. The row of a token's predecessor made it.
class Answer {
  constructor() {
    Object.assign(this, {tokens: [], layers: [], prompt: null, text: "", decoder: new TextDecoder()});
  }

  add(choice) {
    const fresh = tokensOf(choice).map((token) => ({...token, text: this.decoder.decode(token.bytes, {stream: true})}));
    this.tokens.push(...fresh);
    this.text += choice.text ?? choice.delta?.content ?? "";
    for (const [i, {name, experts, weights}] of (choice.routing?.layers ?? []).entries()) {
      const layer = this.layers[i] ??= {name, experts: [], weights: []};
      layer.experts.push(...experts);
      layer.weights.push(...weights);
    }
    if (this.layers.length && this.tokens.length) this.prompt ??= this.layers[0].experts.length - this.tokens.length + 1;
    return fresh;
  }

  // [{name, experts, weights}] of a token; empty if the server has not told yet.
  made(index) {
    const row = this.prompt - 1 + index;
    return this.layers.filter((layer) => layer.experts[row]).map(({name, experts, weights}) => ({name, experts: experts[row], weights: weights[row]}));
  }

  // Shares of the experts in each layer: of the whole answer, or of its latest tokens if `fading`.
  shares(counts, fading) {
    return this.layers.map(({name, experts}, i) => {
      const share = new Array(counts[i]).fill(0), last = experts.length - 1;
      for (let row = Math.max(0, this.prompt - 1); row <= last; row++)
        for (const expert of experts[row]) if (expert >= 0) share[expert] += fading ? FADING ** (last - row) : 1;
      const total = share.reduce((a, b) => a + b, 0) || 1;
      return {name, share: share.map((part) => part / total)};
    });
  }
}

// ---- the page ----

function labelled(text, field, hint) {
  return element("label", {title: hint}, `${text} `, field);
}

function nameOf(text) {
  if (text.trim()) return text;
  return {"": "part of a character", "\n": "line break", "\n\n": "empty line"}[text] ?? (text.includes("\n") ? "line breaks" : "space");
}

export class Speak {
  constructor(parent, onAnswer) {
    Object.assign(this, {parent, onAnswer});
  }

  close() {
    this.stop?.abort();
    this.model = null;
  }

  async open(model, most) {
    this.close();
    Object.assign(this, {model, messages: [], counts: [], selected: null});
    this.parent.replaceChildren(element("p", {class: "hint"}, "…"));
    const {layers} = await json(`/v2/models/${encodeURIComponent(model)}/routing`);
    if (model !== this.model) return;
    this.counts = layers.map((layer) => layer.experts.length);
    this.layout(layers, most);
  }

  fail(error) {
    this.parent.replaceChildren(element("p", {class: "bad"}, error.message));
  }

  layout(layers, most) {
    this.prompt = element("textarea", {id: "speak-prompt", rows: 3, maxlength: 100000}, FIRST_PROMPT);
    this.mode = element("select", {onchange: () => this.restart()}, element("option", {value: "completions"}, "continue the text"),
      element("option", {value: "chat/completions"}, "answer in a chat"));
    this.count = element("input", {type: "number", min: 1, max: most, value: Math.min(TOKENS, most), required: true});
    this.temperature = element("input", {type: "number", min: 0, max: 2, step: "any", placeholder: "the model's"});
    this.seed = element("input", {type: "number", min: 0, step: 1, placeholder: "any"});
    this.send = element("button", {class: "action main"}, "Speak");
    this.halt = element("button", {type: "button", class: "action", disabled: true, onclick: () => this.stop?.abort()}, "Stop");
    this.tint = element("select", {onchange: () => this.colour()}, element("option", {value: -1}, "no"),
      ...layers.map(({name}, i) => element("option", {value: i, selected: i === layers.length - 1}, name)));
    this.slowly = element("input", {type: "checkbox", checked: true});
    this.status = element("p", {class: "hint", role: "status"});
    this.speech = element("div", {class: "speech", role: "group", "aria-label": "What was said. Arrow keys go from token to token."});
    this.speech.addEventListener("keydown", (event) => this.key(event));
    this.heat = element("canvas", {role: "img", class: "map", "aria-label": "Experts of the answer, layer by layer"});
    this.detail = element("div", {class: "detail"});
    const form = element("form", {onsubmit: (event) => { event.preventDefault(); this.speak(); }},
      element("label", {for: "speak-prompt"}, "Prompt"), this.prompt,
      element("div", {class: "row"}, labelled("task", this.mode), labelled("max. tokens", this.count),
        labelled("temperature", this.temperature, "0: always the likeliest token"), labelled("seed", this.seed, "The same seed gives the same answer")),
      element("div", {class: "row"}, this.send, this.halt, element("button", {type: "button", class: "action", onclick: () => this.restart()}, "Clear"),
        element("label", {}, this.slowly, " show one token at a time"),
        labelled("colour tokens by the first expert of layer", this.tint)), this.status, this.speech);
    this.parent.replaceChildren(element("div", {class: "try"}, form, element("div", {class: "listening"}, element("h3", {}, "Experts of this answer"), this.heat, this.detail)));
    this.restart();
  }

  restart() {
    this.stop?.abort();
    Object.assign(this, {messages: [], answer: null, selected: null});
    this.speech.replaceChildren();
    this.rest();
    this.status.className = "hint";
    this.status.textContent = "Each token can be clicked, or reached by Tab and the arrow keys.";
    this.detail.replaceChildren();
    this.heat.hidden = true;
  }

  rest() {
    this.send.disabled = false;
    this.halt.disabled = true;
  }

  body() {
    const chat = this.mode.value !== "completions";
    const body = {model: this.model, max_tokens: Number(this.count.value), stream: true, stream_options: {include_usage: true}, routing: true};
    if (this.temperature.value !== "") body.temperature = Number(this.temperature.value);
    if (this.seed.value !== "") body.seed = Number(this.seed.value);
    if (chat) return {...body, messages: this.messages, logprobs: true};
    return {...body, prompt: this.prompt.value, logprobs: 0};
  }

  begin() {
    const chat = this.mode.value !== "completions";
    if (!chat) this.restart();
    else this.messages.push({role: "user", content: this.prompt.value});
    this.speech.append(element("p", {class: "said"}, this.prompt.value));
    this.words = element("p", {class: "words"});
    this.speech.append(this.words);
    const answer = this.answer = new Answer();
    const stop = this.stop = new AbortController();
    this.send.disabled = true;
    this.halt.disabled = false;
    return {answer, stop};
  }

  // Small models are faster than anybody can watch: what comes waits in `heard` until it is shown.
  async speak() {
    const {answer, stop} = this.begin(), heard = [];
    let end = null;
    this.read(heard, stop.signal).then((found) => { end = found; });
    while (this.answer === answer && !stop.signal.aborted && (!end || heard.length)) {
      for (const choice of heard.splice(0, this.slowly.checked ? 1 : heard.length)) this.hear(answer, choice);
      await new Promise((resolve) => setTimeout(resolve, TICK_MS));
    }
    if (this.answer === answer) this.finish(answer, stop.signal.aborted ? {how: "Stopped"} : end);
  }

  async read(heard, signal) {
    const began = performance.now();
    let usage = null, how = "";
    try {
      for await (const event of events(await post(`/v1/${this.mode.value}`, this.body(), signal))) {
        if (event.error) throw new Error(event.error.message);
        usage = event.usage ?? usage;
        if (event.choices?.[0]) heard.push(event.choices[0]);
      }
    } catch (error) {
      how = error.message;
    }
    return {usage, how, time: (performance.now() - began) / 1000};
  }

  hear(answer, choice) {
    const before = answer.tokens.length;
    answer.add(choice).forEach((token, i) => this.words.append(this.word(answer, before + i, token.text)));
    this.status.className = "hint";
    this.status.textContent = `${answer.tokens.length} tokens …`;
    this.draw(true);
  }

  finish(answer, {usage, how, time}) {
    const count = answer.tokens.length;
    answer.prompt = usage?.prompt_tokens ?? answer.prompt;
    if (this.mode.value !== "completions") {
      this.messages.push({role: "assistant", content: answer.text});
      if (!how) this.prompt.value = "";
    }
    this.rest();
    this.status.className = how && how !== "Stopped" ? "bad" : "hint";
    const speed = usage ? ` after ${usage.prompt_tokens} of the prompt in ${number(time, 2)} s, ${number(count / time, 0)} a second, as this browser saw it` : "";
    this.status.textContent = `${how ? `${how}. ` : ""}${count} tokens${speed}.`;
    this.draw(false);
    this.onAnswer();
  }

  // ---- tokens ----

  word(answer, index, text) {
    const made = element("span", {class: "token", role: "button", tabindex: this.speech.querySelector(".token") ? -1 : 0,
      "aria-label": text.trim() ? undefined : nameOf(text)}, text || "·");
    made.token = {answer, index};
    made.addEventListener("click", () => made.focus());
    made.addEventListener("focus", () => this.select(made));
    this.tinge(made);
    return made;
  }

  key(event) {
    const all = [...this.speech.querySelectorAll(".token")], at = all.indexOf(event.target);
    const to = {ArrowLeft: at - 1, ArrowUp: at - 1, ArrowRight: at + 1, ArrowDown: at + 1, Home: 0, End: all.length - 1}[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    all[to]?.focus();
  }

  select(made) {
    for (const other of this.speech.querySelectorAll(".token[tabindex='0'], .token[aria-pressed]")) {
      other.tabIndex = -1;
      other.removeAttribute("aria-pressed");
    }
    made.tabIndex = 0;
    made.setAttribute("aria-pressed", "true");
    this.selected = made.token;
    this.draw(!this.halt.disabled);
    this.tell();
  }

  tinge(made) {
    const {answer, index} = made.token, layer = answer.made(index)[Number(this.tint.value)];
    made.style.backgroundColor = layer ? `hsl(${(layer.experts[0] * HUE) % 360} 70% 50% / 0.28)` : "";
  }

  colour() {
    for (const made of this.speech.querySelectorAll(".token")) this.tinge(made);
  }

  tell() {
    const {answer, index} = this.selected, token = answer.tokens[index], layers = answer.made(index);
    const most = Math.max(0, ...layers.map((layer) => layer.experts.length));
    const table = element("table", {class: "cells"});
    cells(table, "layer", Array.from({length: most}, (_, k) => `choice ${k + 1}`), layers.map(({name, experts, weights}) => ({name,
      values: experts.map((expert, k) => ({text: expert < 0 ? "dropped" : `expert ${expert}, ${number(weights[k], 2)}`, strength: Math.abs(weights[k])}))})));
    this.detail.replaceChildren(element("h3", {}, `Token ${index + 1}: `, element("q", {class: "token-name"}, nameOf(token.text))),
      element("p", {class: "hint"}, `Its probability was ${percent(token.probability)}. `, layers.length
        ? "These experts made it, with these combine weights:" : "The server tells its experts when the answer ends."),
      element("div", {class: "scroll", tabindex: 0, role: "region", "aria-label": "Experts of the token"}, table));
  }

  // ---- the map ----

  draw(fading) {
    if (this.frame) cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => {
      this.frame = null;
      const answer = this.selected?.answer ?? this.answer;
      if (!answer?.layers.length) return;
      this.colour();
      this.heat.hidden = false;
      const size = heatMap(this.heat, answer.shares(this.counts, fading), -1);
      if (this.selected) this.outline(size);
    });
  }

  // Frames around the experts of the token that is looked at.
  outline({width, height}) {
    const context = this.heat.getContext("2d"), wide = this.heat.width / width, high = this.heat.height / height;
    context.strokeStyle = getComputedStyle(document.documentElement).getPropertyValue("--second");
    context.lineWidth = 2 * (window.devicePixelRatio || 1);
    this.selected.answer.made(this.selected.index).forEach((layer, y) => layer.experts.forEach((expert) =>
      expert >= 0 && context.strokeRect(expert * wide + 1, y * high + 1, wide - 2, high - 2)));
  }
}
