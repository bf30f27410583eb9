// Opens a page in a Chromium, and calls a function with it that clicks and types. A page from a file has no network.
// Arguments: the browser, the folder of the packages, the page, the width and height of the screen, whether it is dark,
// and whether scripts run. stdin: the function, `async (page) => ...`. stdout: what it returned, and what went wrong or
// was loaded meanwhile: of a server, what is not its own.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [browser, packages, given, width, height, scheme, scripts] = process.argv.slice(2);
const isServed = given.startsWith("http://");
const address = isServed ? given : pathToFileURL(given).href;
const isOwn = (url) => (isServed ? new URL(url).origin === new URL(address).origin : url === address);
const { chromium } = createRequire(`${packages}/`)("playwright-core");
let body = "";
for await (const piece of process.stdin) body += piece;
const launched = await chromium.launch({ executablePath: browser, args: process.getuid() === 0 ? ["--no-sandbox"] : [] });
try {
  const context = await launched.newContext({
    viewport: { width: Number(width), height: Number(height) }, hasTouch: Number(width) < 600, colorScheme: scheme, offline: !isServed,
    javaScriptEnabled: scripts !== "off",
  });
  const page = await context.newPage();
  page.setDefaultTimeout(30000);
  const [errors, loaded] = [[], []];
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("console", (said) => { if (said.type() !== "log" && !/the server responded with a status of 4/.test(said.text())) errors.push(said.text()); });
  page.on("dialog", (dialog) => { errors.push(`a dialog: ${dialog.message()}`); dialog.dismiss(); });
  page.on("request", (request) => { if (!isOwn(request.url())) loaded.push(request.url()); });
  await page.goto(address);
  const value = await (0, eval)(`(${body})`)(page);
  process.stdout.write(JSON.stringify({ value, errors, loaded }));
} finally {
  await launched.close();
}
