// A bundle that cannot see says so; against the server at DWINDLE_BLIND_URL, or the mock where it is not set.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { controls, openBrowser, openPage } from "./browser.mjs";
import { startMock } from "./mock.mjs";
import { shapes } from "./pictures.mjs";

let browser;
let mock;
let url;

before(async () => {
  if (!process.env.DWINDLE_BLIND_URL) mock = await startMock({ blind: true });
  url = process.env.DWINDLE_BLIND_URL ?? mock.url;
  browser = await openBrowser();
});
after(async () => {
  await browser?.close();
  await mock?.close();
});

test("the picture button is there, and says why it does nothing", async () => {
  const { page, context, seen } = await openPage(browser, url);
  const { send, finished, lastAnswer } = controls(page);
  const note = page.locator("#composer-note");
  let choosers = 0;
  page.on("filechooser", () => (choosers += 1));
  await page.getByRole("button", { name: "Add a picture" }).click();
  await note.getByText("cannot see pictures").waitFor();
  assert.equal(choosers, 0);
  const transfer = await page.evaluateHandle((data) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))], "a.png", { type: "image/png" }));
    return transfer;
  }, shapes(40, 40).toString("base64"));
  await page.dispatchEvent("body", "drop", { dataTransfer: transfer });
  await note.getByText("cannot see pictures").waitFor();
  assert.equal(await page.locator(".attached-picture").count(), 0);
  await page.getByRole("heading", { name: "Talk with a model of your own" }).waitFor();

  await send("Hello");
  await finished();
  assert.equal(await note.innerText(), "");
  assert.notEqual((await lastAnswer.locator(".words").innerText()).trim(), "");
  await context.close();
  assert.deepEqual(seen.errors, []);
  assert.deepEqual(seen.foreign, []);
});
