// Opens the dashboard as people do; run.sh says what is checked.
import fs from "fs";
import {chromium} from "playwright-core";

const [url, work] = process.argv.slice(2);
const VIEWS = [
  {name: "desk-light", model: "fashion-mnist", width: 1280, height: 900, scheme: "light", sample: "ankle boot"},
  {name: "desk-dark", model: "large", width: 1280, height: 900, scheme: "dark"},
  {name: "phone-dark", model: "fashion-mnist-attentive", width: 390, height: 844, scheme: "dark", sample: "trouser"},
  {name: "phone-light", model: "adult-mmoe", width: 390, height: 844, scheme: "light", send: true},
];
const FRAME_MS = 16.7, WATCH_MS = 10000;
const axe = fs.readFileSync(`${work}/node_modules/axe-core/axe.min.js`, "utf8");
const problems = [];

async function look(browser, view) {
  const page = await browser.newPage({viewport: {width: view.width, height: view.height}, colorScheme: view.scheme});
  const say = (what) => problems.push(`${view.name}: ${what}`);
  page.on("console", (message) => message.type() === "error" && say(`console: ${message.text()}`));
  page.on("pageerror", (error) => say(error.message));
  page.on("request", (request) => request.url().startsWith(url) || request.url().startsWith("data:") || say(`asks ${request.url()}`));
  await page.goto(`${url}/#${view.model}`);
  await page.waitForSelector("#try-body form");
  if (view.sample) await page.selectOption("#tryit select", view.sample);
  if (view.send) await page.click("#tryit .action.main");
  await page.waitForTimeout(WATCH_MS);
  if (view.sample || view.send) await page.waitForSelector("#tryit .answers");
  await page.screenshot({path: `${work}/${view.name}.png`, fullPage: true});
  const {width, frames, rows} = await page.evaluate(() => ({width: document.documentElement.scrollWidth, frames: moed.frames, rows: moed.live.rows}));
  if (width > view.width) say(`the page is ${width} pixels wide`);
  const sorted = [...frames].sort((a, b) => a - b), median = sorted[Math.floor(sorted.length / 2)];
  if (!(median < FRAME_MS)) say(`a frame takes ${median} ms`);
  const {violations} = await page.evaluate(`${axe}; axe.run()`);
  for (const {id, impact, nodes} of violations) say(`axe: ${id} (${impact}) at ${nodes[0].html.slice(0, 100)}`);
  console.log(`${view.name.padEnd(12)} ${view.model.padEnd(24)} ${frames.length} frames, median ${median.toFixed(1)} ms, slowest ${sorted.at(-1).toFixed(1)} ms; ${rows} rows`);
  await page.close();
}

const browser = await chromium.launch({executablePath: "/usr/bin/chromium", args: ["--no-sandbox"]});
for (const view of VIEWS) await look(browser, view);
await browser.close();
for (const problem of problems) console.log(`PROBLEM ${problem}`);
console.log(problems.length ? `${problems.length} problems` : "no problems");
process.exit(problems.length ? 1 : 0);
