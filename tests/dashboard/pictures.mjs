// The README's pictures of the page; pictures.py serves it and keeps it busy.
import {chromium} from "playwright-core";

const [url, work] = process.argv.slice(2);
const WATCH_MS = 60000;
const browser = await chromium.launch({executablePath: "/usr/bin/chromium", args: ["--no-sandbox"]});

async function open(model, width) {
  const page = await browser.newPage({viewport: {width, height: 900}});
  await page.goto(`${url}/#${model}`);
  await page.waitForSelector("#try-body form");
  return page;
}

// From the top to what changes while the page is open; below are tables.
async function images() {
  const page = await open("fashion-mnist", 1280);
  await page.waitForTimeout(WATCH_MS);
  await page.selectOption("#tryit select", "trouser");
  await page.waitForSelector("#tryit .answers");
  const {bottom} = await page.evaluate(() => document.querySelector("[aria-labelledby=h-time]").getBoundingClientRect());
  await page.screenshot({path: `${work}/fashion-mnist.png`, fullPage: true, clip: {x: 0, y: 0, width: 1280, height: Math.ceil(bottom) + 12}});
}

async function words() {
  const page = await open("tiny-lm", 1100);
  await page.fill("#speak-prompt", "And it came to pass, that");
  await page.fill("#tryit input[type=number] >> nth=0", "90");
  await page.fill("#tryit input[type=number] >> nth=2", "1");
  await page.click("#tryit .action.main");
  await page.waitForSelector("#tryit [role=status]:has-text('a second')", {timeout: 120000});
  await page.click("#tryit .token >> nth=8");
  await page.locator("#tryit").screenshot({path: `${work}/tiny-lm.png`});
}

await images();
await words();
await browser.close();
