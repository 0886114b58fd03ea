// Chromium under command: reads one command per line as JSON, answers each with one line.
//   {"open": URL, "width": 360, "dark": true}   a new page in a profile of its own: {"status", "headers"}
//   {"evaluate": EXPRESSION}                    {"value"}; a promise is awaited
//   {"call": NAME, "with": [...]}               the page's own window.calls[NAME](...): {"value"}
//   {"screenshot": FILE}                        {}
//   {"close": true}                             the page goes away: {"console": what it said of errors, "requests"}
// What a page throws comes back as {"thrown"}. Ends, and Chromium with it, when its input ends.
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

// A name that leads here, as a page could make its own do; nothing else is ever looked up.
const rules = `MAP rebound.example.com 127.0.0.1, EXCLUDE localhost, EXCLUDE 127.0.0.1, MAP * ~NOTFOUND`;
const browser = await chromium.launch({
  executablePath: process.argv[2],
  args: [`--host-resolver-rules=${rules}`, "--no-proxy-server"],
});
let context, page, said, requests;

const commands = {
  async open(url, { width = 1000, dark = false }) {
    context = await browser.newContext({ viewport: { width, height: 800 }, colorScheme: dark ? "dark" : "light" });
    page = await context.newPage();
    said = [];
    requests = [];
    page.on("console", (message) => ["error", "warning"].includes(message.type()) && said.push(message.text()));
    page.on("pageerror", (error) => said.push(String(error)));
    page.on("request", (request) => requests.push(`${request.method()} ${request.url()}`));
    const answer = await page.goto(url);
    return { status: answer.status(), headers: answer.headers() };
  },
  async evaluate(expression) {
    return { value: (await page.evaluate(expression)) ?? null };
  },
  async call(name, { with: words = [] }) {
    const value = await page.evaluate(([name, words]) => window.calls[name](...words), [name, words]);
    return { value: value ?? null };
  },
  async screenshot(path) {
    await page.screenshot({ path, fullPage: true });
    return {};
  },
  async close() {
    await context.close();
    return { console: said, requests };
  },
};

console.log(JSON.stringify({ version: browser.version() }));
for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  const [name] = Object.keys(command);
  const answer = await commands[name](command[name], command).catch((error) => ({ thrown: error.message }));
  console.log(JSON.stringify(answer));
}
await browser.close();
