// Opens a page from a file in a Chromium without a network, and calls a function with it that clicks and types.
// Arguments: the browser, the folder of the packages, the page, the width and height of the screen, whether it is dark.
// stdin: the function, `async (page) => ...`. stdout: what it returned, and what went wrong or was loaded meanwhile.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [browser, packages, file, width, height, scheme] = process.argv.slice(2);
const { chromium } = createRequire(`${packages}/`)("playwright-core");
let body = "";
for await (const piece of process.stdin) body += piece;
const launched = await chromium.launch({ executablePath: browser, args: process.getuid() === 0 ? ["--no-sandbox"] : [] });
try {
  const context = await launched.newContext({
    viewport: { width: Number(width), height: Number(height) }, hasTouch: Number(width) < 600, colorScheme: scheme, offline: true,
  });
  const page = await context.newPage();
  page.setDefaultTimeout(30000);
  const [errors, loaded] = [[], []];
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("console", (said) => { if (said.type() !== "log") errors.push(said.text()); });
  page.on("dialog", (dialog) => { errors.push(`a dialog: ${dialog.message()}`); dialog.dismiss(); });
  page.on("request", (request) => { if (request.url() !== pathToFileURL(file).href) loaded.push(request.url()); });
  await page.goto(pathToFileURL(file).href);
  const value = await (0, eval)(`(${body})`)(page);
  process.stdout.write(JSON.stringify({ value, errors, loaded }));
} finally {
  await launched.close();
}
