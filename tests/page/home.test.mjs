// From another device of the house, on plain http: pairing, chatting, copying; against the pairing address at
// DWINDLE_LAN_URL, or the mock under a name whose origin is not a secure context.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { controls, HOME, openBrowser, openPage, PHONE } from "./browser.mjs";
import { startMock, TOKEN } from "./mock.mjs";
import { shapes } from "./pictures.mjs";

let browser;
let mock;
/** The address with the token, as the code shows it. */
let pairing;

before(async () => {
  if (!process.env.DWINDLE_LAN_URL) mock = await startMock({ lan: true });
  pairing = new URL(process.env.DWINDLE_LAN_URL ?? `http://${HOME}:${mock.port}/pair?token=${TOKEN}`);
  browser = await openBrowser();
});
after(async () => {
  await browser?.close();
  await mock?.close();
});

/** A token pairs one device: the next one's comes from the computer itself. */
async function anotherPairing() {
  if (mock) return pairing;
  const devices = await fetch(`http://127.0.0.1:${pairing.port}/dwindle/devices`).then((response) => response.json());
  return new URL(devices.url);
}

test("a device that is not paired sees what to do, and nothing else", async () => {
  const context = await browser.newContext(PHONE);
  const page = await context.newPage();
  await page.goto(pairing.origin);
  await page.getByRole("heading", { name: "Pair this device" }).waitFor();
  for (const path of ["/dwindle/info", "/v1/models", "/dwindle/devices"]) {
    assert.equal(await page.evaluate((path) => fetch(path).then((response) => response.status), path), 401, path);
  }
  await page.getByLabel("Token").fill("wrong");
  await page.getByRole("button", { name: "Pair" }).click();
  await page.getByRole("heading", { name: "Pair this device" }).waitFor();
  await page.goto(pairing.origin);
  await page.getByLabel("Token").fill(pairing.searchParams.get("token"));
  await page.getByRole("button", { name: "Pair" }).click();
  await page.locator("html[data-ready]").waitFor();
  await context.close();
});

test("a paired phone talks about a picture and copies on plain http", async () => {
  const { page, context, seen } = await openPage(browser, (await anotherPairing()).href, PHONE);
  const { send, finished, lastAnswer, draft } = controls(page);
  assert.equal(new URL(page.url()).pathname, "/", "the token is not left in the address");
  assert.equal(await page.evaluate(() => isSecureContext), false);
  assert.equal(await page.evaluate(() => navigator.clipboard), undefined);
  assert.match(await page.locator("#welcome-where").innerText(), /on the computer \S+ in your home/);
  assert.equal(await page.locator("#open-devices").isVisible(), false, "devices are managed on the computer itself");

  await page.locator("#picture-input").setInputFiles({ name: "shapes.png", mimeType: "image/png", buffer: shapes() });
  await page.locator(".attached-picture img").waitFor();
  await send("What do you see?");
  await finished();
  const answer = (await lastAnswer.locator(".words").innerText()).trim();
  assert.notEqual(answer, "");
  await lastAnswer.getByRole("button", { name: "Copy answer" }).click();
  await page.locator("#toast").getByText("Copied.").waitFor();
  await draft.focus();
  await page.keyboard.press("Control+V");
  const pasted = await draft.inputValue();
  assert.equal(pasted.replace(/[*_`\s]+/g, " ").trim(), answer.replace(/\s+/g, " "), "the clipboard holds the answer");

  if (mock) {
    await send("markdown");
    await finished();
    await lastAnswer.getByRole("button", { name: "Copy code" }).click();
    await draft.fill("");
    await draft.focus();
    await page.keyboard.press("Control+V");
    assert.match(await draft.inputValue(), /^def area\(radius\):\n {4}return/);
    await draft.fill("");
  }

  await page.reload();
  await page.locator("html[data-ready]").waitFor();
  assert.ok((await page.locator(".answer").count()) > 0, "history is kept on plain http too");
  await context.close();
  assert.deepEqual(seen.errors, []);
  assert.deepEqual(seen.foreign, []);
});
