// Takes the pictures of docs/screenshots: the chat, the first page, settings and devices, on a phone and on a desktop,
// light and dark. Look at each one afterwards.
//
//     node screenshots.mjs [FOLDER]

import { execFileSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { controls, DESKTOP, HOME, openBrowser, openPage, PHONE } from "./browser.mjs";
import { startMock, TOKEN } from "./mock.mjs";
import { shapes } from "./pictures.mjs";

const folder = process.argv[2] ?? fileURLToPath(new URL("../../docs/screenshots", import.meta.url));
mkdirSync(folder, { recursive: true });
const browser = await openBrowser();
const mock = await startMock({ lan: true });
const picture = { name: "shapes.png", mimeType: "image/png", buffer: shapes(900, 600) };

async function shot(page, name) {
  await page.waitForTimeout(350);
  const path = join(folder, `${name}.png`);
  await page.screenshot({ path });
  // A palette makes a third of the size; without the program the file stays as it is.
  try {
    execFileSync("pngquant", ["--force", "--skip-if-larger", "--output", path, "96", path]);
  } catch (error) {
    if (error.status !== 98) console.error(`${name}: pngquant did not run (${error.message})`);
  }
  console.log(path);
}

for (const colorScheme of /** @type {const} */ (["light", "dark"])) {
  for (const [device, options] of /** @type {const} */ ([["phone", { ...PHONE, deviceScaleFactor: 1 }], ["desktop", DESKTOP]])) {
    const name = (view) => `${view}-${device}-${colorScheme}`;
    const url = device === "phone" ? `http://${HOME}:${mock.port}` : mock.url;
    const context = { ...options, colorScheme };
    if (device === "phone") context.storageState = { cookies: [await pairedCookie()], origins: [] };
    const { page } = await openPage(browser, url, context);
    const { send, finished } = controls(page);
    await shot(page, name("welcome"));
    await page.locator("#picture-input").setInputFiles(picture);
    await page.locator(".attached-picture img").waitFor();
    await send("What is in this picture?");
    await finished();
    await send("Thanks! What do they have to do with each other?");
    await finished();
    await page.locator("#scroller").evaluate((element) => element.scrollTo(0, 0));
    await page.mouse.move(700, 5);
    await shot(page, name("chat"));
    if (device === "phone") {
      await page.getByRole("button", { name: "Open the list of chats" }).click();
      await shot(page, name("chats"));
      await page.keyboard.press("Escape");
    } else {
      await page.getByRole("button", { name: "Phones and devices" }).click();
      await page.locator(".qr").waitFor();
      await shot(page, name("devices"));
      await page.keyboard.press("Escape");
    }
    await send("Show me some markdown");
    await finished();
    await page.locator("math mfrac").waitFor();
    await shot(page, name("markdown"));
    await page.locator("#open-settings").evaluate((button) => button.click());
    await shot(page, name("settings"));
    await page.keyboard.press("Escape");
    await send("too long a chat");
    await finished();
    await shot(page, name("full"));
    await page.context().close();
  }
}

const unpaired = await browser.newContext(PHONE);
const page = await unpaired.newPage();
await page.goto(`http://${HOME}:${mock.port}/`);
await shot(page, "pair-phone-light");

/** Pairs as a phone does, and returns the cookie. */
async function pairedCookie() {
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.goto(`http://${HOME}:${mock.port}/pair?token=${TOKEN}`);
  const [cookie] = await context.cookies();
  await context.close();
  return cookie;
}

await browser.close();
await mock.close();
