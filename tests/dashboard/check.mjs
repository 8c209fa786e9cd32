// Opens the dashboard as people do; run.sh says what is checked.
import fs from "fs";
import {chromium} from "playwright-core";

const [url, work, closedUrl, token] = process.argv.slice(2);
const VIEWS = [
  {name: "desk-light", model: "fashion-mnist", width: 1280, height: 900, scheme: "light", sample: "ankle boot", worth: true},
  {name: "desk-dark", model: "large", width: 1280, height: 900, scheme: "dark"},
  {name: "phone-dark", model: "fashion-mnist-attentive", width: 390, height: 844, scheme: "dark", sample: "trouser"},
  {name: "phone-light", model: "adult-mmoe", width: 390, height: 844, scheme: "light", send: true},
  {name: "desk-speak", model: "tiny-lm", width: 1280, height: 900, scheme: "light", speak: "completions"},
  {name: "phone-speak", model: "tiny-lm", width: 390, height: 844, scheme: "dark", speak: "chat/completions"},
];
const CLOSED = [
  {name: "desk-token", width: 1280, height: 900, scheme: "light"},
  {name: "phone-token", width: 390, height: 844, scheme: "dark"},
];
const FRAME_MS = 16.7, WATCH_MS = 10000;
const axe = fs.readFileSync(`${work}/node_modules/axe-core/axe.min.js`, "utf8");
const problems = [];

// page.waitForFunction() evaluates text while it waits, which the page's policy forbids.
async function until(page, holds, argument) {
  for (const end = Date.now() + 30000; !(await page.evaluate(holds, argument));) {
    if (Date.now() > end) throw new Error(`waited in vain for ${holds}`);
    await page.waitForTimeout(50);
  }
}

const said = (page) => page.locator("#tryit [role=status]").textContent();

// Waiting is by selectors: waitForFunction evaluates text, which the page's policy forbids.
async function hear(page, tokens) {
  await page.click("#tryit .action.main");
  await page.waitForSelector(`#tryit .words:last-child .token >> nth=${tokens - 1}`);
}

// With some seeds an answer is over at once; this one gives a long one.
async function longSeed(path, prompt) {
  for (let seed = 0; seed < 50; seed++) {
    const asked = path.startsWith("chat") ? {messages: [{role: "user", content: prompt}]} : {prompt};
    const body = JSON.stringify({model: "tiny-lm", max_tokens: 60, seed, ...asked});
    const {usage} = await (await fetch(`${url}/v1/${path}`, {method: "POST", body})).json();
    if (usage.completion_tokens === 60) return String(seed);
  }
  throw new Error(`no long answer to '${prompt}'`);
}

// A language model: the answer comes piece by piece, every token tells its experts to pointer and keyboard, Stop stops.
async function speak(page, view, say) {
  await page.selectOption("#tryit form select", view.speak);
  await page.fill("#tryit input[type=number] >> nth=0", "60");
  const prompt = await page.inputValue("#speak-prompt");
  await page.fill("#tryit input[type=number] >> nth=2", await longSeed(view.speak, prompt));
  await hear(page, 1);
  const during = await page.locator("#tryit .token").count();
  await page.waitForSelector("#tryit [role=status]:has-text('a second')");
  const after = await page.locator("#tryit .token").count();
  if (!(during < after)) say(`the answer came at once: ${during} tokens, then ${after}`);
  await page.click("#tryit .token >> nth=2");
  await page.keyboard.press("ArrowRight");
  if (!(await page.locator("#tryit .detail h3").textContent()).startsWith("Token 4")) say("the arrow key went to no token");
  const layers = await page.evaluate(() => moed.live.layers.length), rows = await page.locator("#tryit .detail tbody tr").count();
  if (rows !== layers) say(`a token shows ${rows} of ${layers} layers`);
  await page.click("#tryit button:has-text('Clear')");
  await page.fill("#speak-prompt", prompt);
  await hear(page, 3);
  await page.click("#tryit button:has-text('Stop')");
  await page.waitForSelector("#tryit .action.main:enabled");
  if (!(await said(page)).startsWith("Stopped")) say(`after Stop: ${await said(page)}`);
  await page.click("#tryit .token >> nth=1");
  await page.locator("#tryit").screenshot({path: `${work}/${view.name}-alone.png`});
}

// What `moectl ablate` has written is drawn as experts by classes; what it has not is refused in words.
async function weigh(page, view, say) {
  const file = "#worth-section input", status = "#worth-section [role=status]";
  const study = JSON.parse(fs.readFileSync(`${work}/ablation.json`, "utf8"));
  await page.setInputFiles(file, {name: "rows.json", mimeType: "application/json", buffer: Buffer.from('{"rows": 1}')});
  await page.waitForSelector(`${status}.bad`);
  await page.setInputFiles(file, `${work}/ablation.json`);
  await until(page, (n) => document.querySelectorAll("#worth-section tbody tr").length === n, study.by_class.length + 2);
  for (const done of ["silenced", "excluded"]) {
    await page.selectOption("#worth-section select", done);
    const {experts} = study.layers[0], cell = page.locator("#worth-section tbody tr >> nth=0").locator("td");
    for (const [i, shown] of (await cell.allTextContents()).entries()) {
      const points = 100 * (experts[i][done].accuracy - study.accuracy);
      if (Math.abs(Number(shown.replace("−", "-")) - points) > 0.051) say(`expert ${i} ${done}: ${shown}, the file has ${points}`);
    }
  }
  await page.locator("#worth-section").screenshot({path: `${work}/${view.name}-worth.png`});
  await page.locator("#classes-section").screenshot({path: `${work}/${view.name}-classes.png`});
}

// What is too small for a double, a model that cannot be served, and the histograms are told in words.
async function read(page, say) {
  const chances = await page.evaluate(async () => {
    const {chance} = await import("/ui/charts.js");
    return [0, 1e-250, 0.03].map(chance).join("; ");
  });
  if (chances !== "p < 1e-300; p 1.0e-250; p 0.03") say(`probabilities are told as ${chances}`);
  const dying = await page.evaluate(async () => {
    const {alarmsOf, quiet} = await import("/ui/alarms.js");
    const layer = {rows: 9, experts: [], dying: [1], quarantine: [{expert: 3}]}; // the server has them apart
    return `${alarmsOf(layer, []).map(({expert}) => expert)} ${quiet(layer, []).includes("In quarantine: 3.")}`;
  });
  const collapsed = await page.evaluate(async () => {
    const {alarmsOf} = await import("/ui/alarms.js");
    const layer = (rows, share) => ({rows, usage_entropy_bits: 0.4, experts: [{index: 0, weight_share: 1 - share}, {index: 1, weight_share: share}]});
    return [[layer(100, 0.9), 1], [layer(99, 0.9), 1], [layer(100, 0.7), 1], [layer(100, 0.9), 0.7], [layer(100, 0.9), undefined],
      [{...layer(100, 1), quarantine: [{expert: 0}]}, 1]]
      .map(([one, bits]) => alarmsOf(one, [null, null], bits).map(({kind, expert}) => kind + expert)).join(";");
  });
  if (collapsed !== "collapse1;;;;;") say(`of one expert that does all the work: ${collapsed}`);
  if (dying !== "1 true") say(`of a dying expert and one in quarantine: ${dying}`);
  const models = await page.locator("#models").textContent();
  if (!models.includes("broken unavailable: ")) say(`of a model that cannot be served: ${models}`);
  for (const title of ["Requests by latency", "Batches by their rows"])
    await page.waitForSelector(`#time svg[aria-label^="${title}: up to"]`);
  const shares = await page.locator("#pairs tbody td:nth-of-type(2)").allTextContents();
  const sum = shares.reduce((all, share) => all + parseFloat(share), 0);
  if (Math.abs(sum - 100) > 1) say(`two experts serve each row, and pairs have ${sum} % of them`);
}

// Each expert's accuracy on each class, as the routing document has it.
async function accuracies(page, view, say) {
  await page.selectOption("#classes-of", "accuracy");
  const wrong = await page.evaluate(() => {
    const {counts, correct} = moed.document.layers[0].classes.truth, rows = [...document.querySelectorAll("#classes tbody tr")];
    return counts.flatMap((row, e) => row.map((n, c) => [rows[c].querySelectorAll("td")[e].textContent, n ? `${(100 * correct[e][c] / n).toFixed(0)} %` : "–"]))
      .filter(([shown, expected]) => shown !== expected);
  });
  if (wrong.length) say(`accuracies by class: ${wrong.join("; ")}`);
  await page.locator("#classes-section").screenshot({path: `${work}/${view.name}-accuracy.png`});
  for (const what of ["log_loss", "ece"]) {
    await page.selectOption("#classes-of", what);
    const odd = await page.evaluate((key) => {
      const {counts, [key]: values} = moed.document.layers[0].classes.truth, rows = [...document.querySelectorAll("#classes tbody tr")];
      const text = (value) => (value === null ? "–" : key === "ece" ? `${(100 * value).toFixed(0)} %` : value.toFixed(2));
      return counts.flatMap((row, e) => row.map((n, c) => [rows[c].querySelectorAll("td")[e], text(values[e][c]), `${n.toLocaleString("en")} rows`]))
        .filter(([cell, expected, title]) => cell.textContent !== expected || cell.title !== title).map(([cell, expected]) => `${cell.textContent}, not ${expected}`);
    }, what);
    if (odd.length) say(`${what} by class: ${odd.join("; ")}`);
    await page.locator("#classes-section").screenshot({path: `${work}/${view.name}-${what}.png`});
  }
  await page.selectOption("#classes-of", "predicted");
}

// An answer about the window before, which comes when another was chosen, is not drawn.
async function overtake(page, say) {
  const slow = "**/routing?window=all&layer=*";
  await page.route(slow, async (route) => {
    await new Promise((resolve) => setTimeout(resolve, 1500));
    await route.continue().catch(() => {});
  });
  await page.waitForRequest(slow);
  await page.selectOption("#window", "5m");
  await page.evaluate(() => { moed.document = null; });
  await until(page, () => moed.document);
  const drawn = await page.evaluate(() => moed.document.window);
  if (drawn !== "5m") say(`the window is 5m, and the figures are of ${drawn}`);
  await page.unrouteAll({behavior: "ignoreErrors"});
  await page.selectOption("#window", "1m");
}

async function look(browser, view) {
  const page = await browser.newPage({viewport: {width: view.width, height: view.height}, colorScheme: view.scheme});
  const say = (what) => problems.push(`${view.name}: ${what}`);
  page.on("console", (message) => message.type() === "error" && say(`console: ${message.text()}`));
  page.on("pageerror", (error) => say(error.message));
  page.on("request", (request) => request.url().startsWith(url) || request.url().startsWith("data:") || say(`asks ${request.url()}`));
  await page.goto(`${url}/#${view.model}`);
  await page.waitForSelector("#try-body form");
  if (view.speak) await speak(page, view, say);
  if (view.sample) await page.selectOption("#tryit select", view.sample);
  if (view.send) await page.click("#tryit .action.main");
  await page.waitForTimeout(WATCH_MS);
  await until(page, () => moed.live);
  if (view.sample || view.send) await page.waitForSelector("#tryit .answers");
  if (view.worth) {
    await read(page, say);
    await accuracies(page, view, say);
    await overtake(page, say);
    await weigh(page, view, say);
  }
  await page.screenshot({path: `${work}/${view.name}.png`, fullPage: true});
  const {width, frames, rows} = await page.evaluate(() => ({width: document.documentElement.scrollWidth, frames: moed.frames, rows: moed.live.rows}));
  if (width > view.width) say(`the page is ${width} pixels wide`);
  const sorted = [...frames].sort((a, b) => a - b), median = sorted[Math.floor(sorted.length / 2)];
  if (!(median < FRAME_MS)) say(`a frame takes ${median} ms`);
  await judge(page, say);
  console.log(`${view.name.padEnd(12)} ${view.model.padEnd(24)} ${frames.length} frames, median ${median.toFixed(1)} ms, slowest ${sorted.at(-1).toFixed(1)} ms; ${rows} rows`);
  await page.close();
}

// Nobody has named a model: the page opens on one that can be drawn for, and a stroke is a one.
async function open(browser) {
  const page = await browser.newPage({viewport: {width: 1280, height: 900}, colorScheme: "light"});
  const say = (what) => problems.push(`first look: ${what}`);
  page.on("pageerror", (error) => say(error.message));
  await page.goto(`${url}/`);
  await page.locator("#tryit canvas.draw").scrollIntoViewIfNeeded();
  const model = await page.evaluate(() => moed.model), box = await page.locator("#tryit canvas.draw").boundingBox();
  if (model !== "mnist") say(`it opens on ${model}`);
  await page.mouse.move(box.x + box.width / 2, box.y + 0.2 * box.height);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width / 2, box.y + 0.8 * box.height, {steps: 10});
  await page.mouse.up();
  await page.click("#tryit .action.main");
  await page.waitForSelector("#tryit .answers .first");
  const answer = await page.locator("#tryit .answers .first >> nth=0").textContent();
  if (answer !== "1") say(`a stroke is ${answer}`);
  await page.screenshot({path: `${work}/first-look.png`});
  console.log(`first look   ${model}: a stroke is ${answer}`);
  await page.close();
}

async function judge(page, say) {
  const {violations} = await page.evaluate(`${axe}; axe.run()`);
  for (const {id, impact, nodes} of violations) say(`axe: ${id} (${impact}) at ${nodes[0].html.slice(0, 100)}`);
}

// A server with tokens: the page asks a person for one, sends nothing until it has it, and keeps it for the tab.
async function enter(browser, view) {
  const page = await browser.newPage({viewport: {width: view.width, height: view.height}, colorScheme: view.scheme});
  const say = (what) => problems.push(`${view.name}: ${what}`);
  let asked = 0;
  page.on("console", (message) => message.type() === "error" && !/status of 401/.test(message.text()) && say(`console: ${message.text()}`));
  page.on("pageerror", (error) => say(error.message));
  page.on("request", () => { asked++; });
  await page.goto(`${closedUrl}/`);
  await page.waitForSelector("#access:not([hidden])");
  await page.waitForTimeout(500);
  asked = 0;
  await page.waitForTimeout(5000);
  if (asked) say(`${asked} requests while a person is asked`);
  await judge(page, say);
  const overhang = await page.evaluate(() => document.getElementById("token").getBoundingClientRect().right - document.getElementById("access").getBoundingClientRect().right);
  if (overhang > 0) say("the field is wider than its form");
  await page.screenshot({path: `${work}/${view.name}-asked.png`});
  await page.fill("#token", "w\u2013g");
  await page.keyboard.press("Enter");
  await page.waitForSelector("#access-said:has-text('no token has')");
  await page.fill("#token", "wrong");
  await page.keyboard.press("Enter");
  await page.waitForSelector("#access-said:has-text('token')");
  await page.screenshot({path: `${work}/${view.name}-wrong.png`});
  await page.fill("#token", token);
  await page.click("#access .action.main");
  await page.waitForSelector("#connection:has-text('live')");
  await page.selectOption("#tryit select", "ankle boot");
  await page.waitForSelector("#tryit .answers");
  await page.reload();
  await page.waitForSelector("#connection:has-text('live')");
  if (await page.isVisible("#access")) say("a page that was loaded again asks again");
  await page.waitForSelector("#tiles b");
  await judge(page, say);
  await page.screenshot({path: `${work}/${view.name}.png`});
  await page.click("#another");
  await page.waitForSelector("#access:not([hidden])");
  if (await page.evaluate(() => sessionStorage.length)) say("the token before is still kept");
  console.log(`${view.name.padEnd(12)} a token was asked for, refused, taken, kept, and given up`);
  await page.close();
}

// The model is part of the address: Back shows the one before, and no figure of the one that was left.
async function back(browser) {
  const page = await browser.newPage();
  const shows = (name) => page.waitForSelector(`#models button[data-model=${name}][aria-current=true]`, {timeout: 10000})
    .catch(() => problems.push(`back: ${name} is not shown at ${page.url()}`));
  await page.goto(`${url}/#mnist`);
  await shows("mnist");
  await page.waitForSelector("#tiles >> text=memory of the server", {timeout: 3000}).catch(() => problems.push("back: figures come late"));
  await page.click("#models button[data-model=clusters]");
  await shows("clusters");
  await page.goBack();
  await shows("mnist");
  await page.evaluate(() => { location.hash = "no-such-model"; });
  await shows("mnist");
  await page.close();
}

// An address may hold anything: the page then shows its first model. A stroke that begins outside of the drawing is none.
async function wander(browser) {
  for (const hash of ["#%", "#%E0%A4", "#constructor", "#no-such-model"]) {
    const page = await browser.newPage();
    page.on("pageerror", (error) => problems.push(`${hash}: ${error.message}`));
    await page.goto(`${url}/${hash}`);
    await page.waitForSelector("#models button[aria-current=true]", {timeout: 20000}).catch(() => problems.push(`${hash}: no model is shown`));
    await page.click("#models button[data-model=mnist]");
    const canvas = await page.waitForSelector("#tryit canvas");
    await canvas.scrollIntoViewIfNeeded();
    const box = await canvas.boundingBox();
    await page.mouse.move(box.x - 5, box.y + 5);
    await page.mouse.down();
    await page.mouse.move(box.x + 20, box.y + 20, {steps: 4});
    await page.mouse.up();
    await page.close();
  }
}

// What is offered to try is recognised: clothes by the models of clothes, digits by those of digits.
async function recognise(browser) {
  const page = await browser.newPage();
  for (const model of ["fashion-mnist", "fashion-mnist-attentive", "mnist", "mnist-attentive"]) {
    await page.goto(`${url}/#${model}`);
    await page.waitForSelector(`#models button[data-model=${model}][aria-current=true]`);
    await page.waitForSelector("#tryit canvas");
    const samples = (await page.locator("#tryit select option").allTextContents()).slice(1);
    for (const sample of samples.filter((name) => name.startsWith("digit") === model.startsWith("mnist"))) {
      await page.evaluate(() => document.querySelectorAll("#tryit .answers").forEach((answers) => answers.remove())); // the one before
      await page.selectOption("#tryit select", sample);
      await page.waitForSelector("#tryit .answers");
      const first = await page.locator("#tryit .answers").first().locator("> *").first().textContent();
      if (!first.toLowerCase().startsWith(sample.replace("digit ", "").toLowerCase())) problems.push(`${model}: '${sample}' is taken for ${first}`);
    }
  }
  await page.close();
}

const browser = await chromium.launch({executablePath: "/usr/bin/chromium", args: ["--no-sandbox"]});
await open(browser);
for (const view of VIEWS) await look(browser, view);
for (const view of CLOSED) await enter(browser, view);
await wander(browser);
await recognise(browser);
await back(browser);
await browser.close();
for (const problem of problems) console.log(`PROBLEM ${problem}`);
console.log(problems.length ? `${problems.length} problems` : "no problems");
process.exit(problems.length ? 1 : 0);
