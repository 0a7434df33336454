// axe-core finds nothing on any view, light and dark, on a desktop and on a phone; against the mock, whose answers have everything.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import axe from "axe-core";
import { controls, DESKTOP, openBrowser, openPage, PHONE } from "./browser.mjs";
import { startMock } from "./mock.mjs";
import { shapes } from "./pictures.mjs";

let browser;
let mock;

before(async () => {
  mock = await startMock({ lan: true });
  browser = await openBrowser();
});
after(async () => {
  await browser?.close();
  await mock?.close();
});

/** Runs all of axe's rules on what is shown. */
async function check(page, view) {
  // Half-faded colours have half the contrast.
  await page.waitForTimeout(300);
  const { found: violations, passed } = await page.evaluate(async () => {
    const { violations, passes } = await globalThis.axe.run(document, { resultTypes: ["violations"] });
    const found = violations.flatMap(({ id, help, nodes }) => nodes.map((node) => `${id}: ${help}: ${node.target.join(" ")} ${node.failureSummary?.split("\n")[1] ?? ""}`));
    return { found, passed: passes.map(({ id }) => id) };
  });
  assert.deepEqual(violations, [], view);
  // Rules that have something to look at on every view.
  for (const rule of ["color-contrast", "button-name"]) assert.ok(passed.includes(rule), `${view}: ${rule} was looked at`);
}

for (const colorScheme of /** @type {const} */ (["light", "dark"])) {
  for (const [device, options] of Object.entries({ desktop: DESKTOP, phone: PHONE })) {
    test(`${device}, ${colorScheme}`, async (t) => {
      const { page, context } = await openPage(browser, mock.url, { ...options, colorScheme });
      t.after(() => context.close());
      const { send, finished, lastAnswer } = controls(page);
      // Through the debugger, past the security policy, which stays in force for the page.
      await page.evaluate(axe.source);
      const press = (name) => page.getByRole("button", { name, exact: true }).first().click();
      const sidebar = async (name) => {
        if (device === "phone") await press("Open the list of chats");
        await press(name);
      };
      const close = async () => {
        await page.keyboard.press("Escape");
        await page.getByRole("dialog").waitFor({ state: "detached" });
        if (device === "phone" && (await page.locator("#sidebar.open").count())) await page.keyboard.press("Escape");
      };

      await check(page, "first page");
      await page.locator("#picture-input").setInputFiles({ name: "shapes.png", mimeType: "image/png", buffer: shapes() });
      await page.locator(".attached-picture img").waitFor();
      await check(page, "a picture to send");
      await send("What do you see?");
      await finished();
      await check(page, "description and answer");
      await page.locator(".picture").click();
      await check(page, "one picture");
      await close();
      await send("markdown");
      await finished();
      await lastAnswer.locator("math mfrac").waitFor();
      await check(page, "Markdown");
      await send("the queue is full");
      await finished();
      // Every second time the mock's queue has room.
      if ((await lastAnswer.locator(".failure").count()) === 0) {
        await press("Answer again");
        await finished();
      }
      await lastAnswer.locator(".failure").waitFor();
      await check(page, "a failure");
      await page.locator(".message.user").last().hover();
      await page.getByRole("button", { name: "Edit and send again" }).last().click();
      await check(page, "editing");
      await page.getByRole("button", { name: "Cancel" }).click();
      await page.locator("#picture-input").setInputFiles({ name: "x.png", mimeType: "image/png", buffer: Buffer.from("x") });
      await page.locator("#composer-note").getByText("is not a picture").waitFor();
      await check(page, "a note at the message box");

      if (device === "phone") {
        await press("Open the list of chats");
        await check(page, "list of chats");
        await page.keyboard.press("Escape");
      } else {
        await page.locator("#chats .chat").first().hover();
        await check(page, "list of chats");
      }
      await sidebar("Settings");
      await page.getByText("How answers are chosen (sampling)").click();
      await page.getByLabel("Top-p").fill("9");
      await page.getByLabel("Top-p").press("Tab");
      await check(page, "settings");
      await close();
      await sidebar("Export and import");
      await check(page, "export and import");
      await close();
      await sidebar("Phones and devices");
      await page.locator(".qr").waitFor();
      await check(page, "devices");
      await press("Remove Android, Chrome");
      await check(page, "a question");
    });
  }

  test(`pairing page, ${colorScheme}`, async (t) => {
    const context = await browser.newContext({ ...PHONE, colorScheme });
    t.after(() => context.close());
    const page = await context.newPage();
    await page.goto(`${mock.url}/page/pair.html`);
    await page.evaluate(axe.source);
    await check(page, "pairing page");
  });
}
