// Pictures of the dashboard while stories.py tells a story: opens the page, then takes the pictures that it is asked
// for on its standard input, one name a line, and answers each with a line of what the page says.
import readline from "readline";
import {chromium} from "playwright-core";

const [url, work] = process.argv.slice(2);
const VIEWS = {
  desk: {viewport: {width: 1280, height: 900}, colorScheme: "light"},
  dark: {viewport: {width: 1280, height: 900}, colorScheme: "dark"},
  phone: {viewport: {width: 390, height: 844}, colorScheme: "light"},
};

const browser = await chromium.launch({executablePath: "/usr/bin/chromium", args: ["--no-sandbox"]});
const pages = {};
for (const [view, options] of Object.entries(VIEWS)) {
  pages[view] = await browser.newPage(options);
  pages[view].on("pageerror", (error) => console.log(`PROBLEM ${view}: ${error.message}`));
  await pages[view].goto(`${url}/#fashion-mnist`);
  await pages[view].waitForSelector("#figures dd");
}
console.log("open");

// From the top to the charts: what is below is for one's own tries.
async function cut(page) {
  const {bottom} = await page.evaluate(() => document.querySelector("[aria-labelledby=h-time]").getBoundingClientRect());
  return {x: 0, y: 0, width: page.viewportSize().width, height: Math.ceil(bottom) + 8};
}

for await (const name of readline.createInterface({input: process.stdin})) {
  for (const [view, page] of Object.entries(pages)) {
    await page.evaluate(() => scrollTo(0, 0));
    await page.screenshot({path: `${work}/${name}-${view}.png`, fullPage: true, clip: await cut(page)});
  }
  const alarms = await pages.desk.locator("#alarm-list li").allTextContents();
  console.log(alarms.length ? alarms.join(" | ") : await pages.desk.locator("#alarm-summary").textContent());
}
await browser.close();
