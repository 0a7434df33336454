// Answers that a real model does not give on demand: attacks, failures, formulas, long ones; always against the mock.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { controls, openBrowser, openPage } from "./browser.mjs";
import { startMock } from "./mock.mjs";
import { shapes } from "./pictures.mjs";

let browser;
let mock;

before(async () => {
  mock = await startMock();
  browser = await openBrowser();
});
after(async () => {
  await browser?.close();
  await mock?.close();
});

async function open(t, options) {
  const opened = await openPage(browser, mock.url, options);
  t.after(async () => {
    await opened.context.close();
    assert.deepEqual(opened.seen.errors, [], "no error in the console");
    assert.deepEqual(opened.seen.foreign, [], "no request leaves the origin");
  });
  return { ...opened, ...controls(opened.page) };
}

test("an attack in an answer does nothing and loads nothing", async (t) => {
  const { page, send, finished, lastAnswer, seen } = await open(t);
  await page.evaluate(() => {
    window.violations = [];
    document.addEventListener("securitypolicyviolation", (event) => window.violations.push(`${event.violatedDirective} ${event.blockedURI}`));
    window.open = () => (window.hacked = "open");
  });
  await send("attack");
  await finished();
  await lastAnswer.getByText("End of the attack.").waitFor();
  // What is in the answer after everything is drawn, formulas included.
  await page.locator(".answer .math[data-set]").first().waitFor();
  const found = await lastAnswer.locator(".words").evaluate((words) => ({
    tags: [...new Set([...words.querySelectorAll("*")].map((element) => element.localName))],
    handlers: [...words.querySelectorAll("*")].flatMap((element) => element.getAttributeNames().filter((name) => name.startsWith("on"))),
    links: [...words.querySelectorAll("[href], [src], [action]")].map((element) => [element.localName, element.getAttribute("href"), element.getAttribute("rel"), element.getAttribute("target")]),
  }));
  for (const tag of ["script", "img", "iframe", "svg", "style", "form", "input", "object", "embed", "link", "meta"]) assert.ok(!found.tags.includes(tag), `no <${tag}>`);
  assert.deepEqual(found.handlers, []);
  assert.ok(found.links.length >= 2);
  for (const [tag, href, rel, target] of found.links) {
    assert.equal(tag, "a");
    assert.match(href, /^https:\/\//);
    assert.match(rel, /noopener/);
    assert.equal(target, "_blank");
  }
  await lastAnswer.getByRole("link", { name: "Picture: a picture" }).waitFor();
  await lastAnswer.locator("sub").waitFor();
  // Links go somewhere only when somebody follows them; everything else is pressed.
  await lastAnswer.locator(".words").evaluate((words) => {
    for (const element of words.querySelectorAll(":not(a)")) element.dispatchEvent(new MouseEvent("click", { bubbles: true }));
  });
  await page.waitForTimeout(300);
  assert.equal(await page.evaluate(() => window.hacked), undefined);
  assert.deepEqual(await page.evaluate(() => window.violations), [], "nothing was left for the security policy to stop");
  assert.deepEqual(seen.foreign, []);
});

test("the security policy would stop what the sanitizer let through", async (t) => {
  const { page, seen } = await open(t);
  const stopped = await page.evaluate(async () => {
    const blocked = [];
    document.addEventListener("securitypolicyviolation", (event) => blocked.push(event.effectiveDirective));
    const box = document.createElement("div");
    document.body.append(box);
    box.innerHTML = '<img src="https://attacker.example/x.png"><p style="color: red">x</p><button onclick="window.hacked = 1">x</button>';
    box.querySelector("button").click();
    const script = document.createElement("script");
    script.textContent = "window.hacked = 2";
    box.append(script);
    await fetch("https://attacker.example/").catch(() => {});
    await new Promise((resolve) => setTimeout(resolve, 100));
    return { blocked: [...new Set(blocked)].sort(), hacked: window.hacked };
  });
  assert.equal(stopped.hacked, undefined);
  for (const directive of ["connect-src", "img-src", "script-src-attr", "script-src-elem", "style-src-attr"]) assert.ok(stopped.blocked.includes(directive), `${directive} in ${stopped.blocked}`);
  // These errors were asked for.
  seen.errors.length = 0;
  seen.foreign.length = 0;
});

test("Markdown, code and formulas are set", async (t) => {
  const { page, send, finished, lastAnswer } = await open(t);
  const loaded = [];
  page.on("request", (request) => loaded.push(new URL(request.url()).pathname));
  await send("Hello");
  await finished();
  assert.ok(!loaded.includes("/page/vendor/temml.min.js"), "the library for formulas is not loaded without one");
  await send("markdown");
  await finished();
  await lastAnswer.locator("math mfrac").waitFor();
  assert.equal(loaded.filter((path) => path === "/page/vendor/temml.min.js").length, 1);
  await lastAnswer.locator("math msup").first().waitFor();
  assert.equal(await lastAnswer.locator("ol > li").count(), 2);
  assert.equal(await lastAnswer.locator("table td").count(), 4);
  await lastAnswer.getByText("and it costs $5 or $6.").waitFor();
  await lastAnswer.getByRole("group", { name: "Code, python" }).waitFor();
  // The rest is as it was when everything is drawn again from the store.
  const before = await lastAnswer.locator(".words").innerText();
  await page.reload();
  await lastAnswer.locator("math mfrac").waitFor();
  await lastAnswer.locator("math msup").first().waitFor();
  assert.equal(await lastAnswer.locator(".words").innerText(), before);
});

/** Waits for something that the page does in a moment. */
async function until(condition, what) {
  for (let tries = 0; tries < 200; tries++) {
    if (await condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  assert.fail(what);
}

test("an answer grows while it is written, keeps a reader's place, and is stopped in the middle", async (t) => {
  const { page, send, stopButton, lastAnswer, finished } = await open(t, { viewport: { width: 1000, height: 420 } });
  const before = mock.cancelled();
  await send("a long story");
  const words = lastAnswer.locator(".words");
  await words.getByText("A red circle").first().waitFor();
  const early = (await words.innerText()).length;
  await page.waitForTimeout(700);
  const later = (await words.innerText()).length;
  assert.ok(early > 0 && later > early, `${early} characters, then ${later}`);
  // Once there is a second paragraph, the first one's element stays the same: a selection in it lives on.
  await words.locator(".block").nth(1).waitFor();
  const first = await words.locator(".block").first().elementHandle();
  await words.locator(".block").nth(2).waitFor();
  assert.ok(await first.evaluate((element) => element.isConnected));
  await page.waitForFunction(() => document.querySelector("#scroller").scrollHeight > document.querySelector("#scroller").clientHeight + 120);
  const atEnd = () => page.evaluate(() => { const s = document.querySelector("#scroller"); return s.scrollHeight - s.scrollTop - s.clientHeight < 80; });
  await until(atEnd, "the end stays in view");
  await page.evaluate(() => document.querySelector("#scroller").scrollTo(0, 0));
  await page.waitForTimeout(300);
  assert.ok(!(await atEnd()), "who scrolled up is left there");
  await page.getByRole("button", { name: "Newest" }).click();
  await until(atEnd, "the end is in view again");
  await stopButton.click();
  await lastAnswer.getByText("Stopped here.").waitFor();
  await finished();
  const stopped = (await words.innerText()).length;
  await page.waitForTimeout(300);
  assert.equal((await words.innerText()).length, stopped);
  assert.equal(mock.cancelled(), before + 1, "the server sees the connection close");
  // What was stopped is kept, and sent as part of the chat.
  await send("Go on");
  await finished();
  const sent = mock.requests[mock.requests.length - 1].messages;
  assert.deepEqual(sent.map((message) => message.role), ["user", "assistant", "user"]);
  assert.match(sent[1].content, /^A red circle/);
});

test("Escape stops, and a reload in the middle keeps what was written", async (t) => {
  const { page, send, lastAnswer } = await open(t);
  await send("a long story");
  await lastAnswer.getByText("A red circle").first().waitFor();
  await page.keyboard.press("Escape");
  await lastAnswer.getByText("Stopped here.").waitFor();
  await page.getByRole("button", { name: "Answer again" }).click();
  await lastAnswer.getByText("A red circle").first().waitFor();
  await page.waitForTimeout(2600);
  await page.reload();
  await lastAnswer.getByText("Stopped here.").waitFor();
  assert.match(await lastAnswer.locator(".words").innerText(), /^A red circle/);
});

test("each phase of a slow answer is shown", async (t) => {
  const slow = await startMock({ slow: true });
  t.after(() => slow.close());
  const { page, context } = await openPage(browser, slow.url);
  t.after(() => context.close());
  const { send, lastAnswer, finished } = controls(page);
  await page.locator("#picture-input").setInputFiles([
    { name: "a.png", mimeType: "image/png", buffer: shapes(300, 200) },
    { name: "b.png", mimeType: "image/png", buffer: shapes(320, 200) },
  ]);
  await page.locator(".attached-picture img").nth(1).waitFor();
  await send("wait in the queue");
  for (const text of ["Waiting. 2 other conversations are before this one.", "Looking at picture 1 of 2…", "Looking at picture 2 of 2…", /Reading \d+ of \d+ tokens…/]) await lastAnswer.locator(".progress").getByText(text).waitFor();
  await lastAnswer.locator("progress").waitFor();
  assert.equal(await lastAnswer.locator("details.seen[open]").count(), 2, "descriptions are shown before the answer");
  await finished();
  assert.equal(await lastAnswer.locator(".progress *").count(), 0);
});

test("a full queue is explained, and tried again", async (t) => {
  const { page, send, finished, lastAnswer, answers } = await open(t);
  await send("the queue is full");
  await lastAnswer.getByText("The model is busy with other conversations.").waitFor();
  await lastAnswer.getByText("Try again in 5 seconds.").waitFor();
  await page.getByRole("button", { name: "Try again" }).click();
  await finished();
  await lastAnswer.getByText("You said").waitFor();
  assert.equal(await answers.count(), 1);
});

test("a chat that is too long is shortened, or left for a new one", async (t) => {
  const { page, send, finished, lastAnswer } = await open(t);
  await send("too long a chat, says the mock to whatever holds these words");
  await finished();
  await lastAnswer.getByText("This chat is too long for the model.").waitFor();
  await lastAnswer.getByText("It has 5,120 tokens, and the model can hold 4,096.").waitFor();
  await page.getByRole("button", { name: "Shorten this chat" }).click();
  await page.locator("#toast").getByText("The last message alone is too long.").waitFor();
  await send(`And another thing. ${"It is much longer than what was said before. ".repeat(12)}`);
  await finished();
  await lastAnswer.getByText("This chat is too long for the model.").waitFor();
  await page.getByRole("button", { name: "Shorten this chat" }).click();
  await page.getByText("The model no longer sees the messages above.").waitFor();
  await finished();
  await lastAnswer.getByText("You said: And another thing.").waitFor();
  const sent = mock.requests[mock.requests.length - 1].messages;
  assert.equal(sent.length, 1);
  await page.reload();
  await page.getByText("The model no longer sees the messages above.").waitFor();

  await page.getByRole("button", { name: "New chat" }).first().click();
  await send("too many bytes");
  await lastAnswer.getByText("This chat has too many pictures.").waitFor();
  await lastAnswer.getByRole("button", { name: "New chat" }).click();
  await page.getByRole("heading", { name: "Talk about your pictures" }).waitFor();
});

test("failures in the middle keep what was written", async (t) => {
  const { page, send, finished, lastAnswer } = await open(t);
  await send("break in the middle");
  await lastAnswer.getByText("The answer failed.").waitFor();
  await lastAnswer.getByText("The device was lost.").waitFor();
  assert.match(await lastAnswer.locator(".words").innerText(), /^A red circle/);
  await send("hang up");
  await lastAnswer.getByText(/The connection (broke|ended) in the middle of the answer\./).waitFor();
  await finished();
  await page.reload();
  await lastAnswer.getByText(/The connection (broke|ended) in the middle of the answer\./).waitFor();
  await send("to the longest length");
  await lastAnswer.getByText("The answer reached its longest length.").waitFor();
});

test("a server that is gone is said to be gone, and found again", async (t) => {
  const own = await startMock();
  const { page, context } = await openPage(browser, own.url);
  t.after(() => context.close());
  const { send, lastAnswer, finished } = controls(page);
  await own.close();
  await send("Are you there?");
  await lastAnswer.getByText("The computer that runs the model does not answer.").waitFor();
  await page.locator("#banner").getByText("Is Dwindle still running there?").waitFor();
  const back = await startMock({ port: own.port });
  t.after(() => back.close());
  await page.waitForFunction(() => document.getElementById("banner").textContent === "");
  await lastAnswer.getByRole("button", { name: "Try again" }).click();
  await finished();
  await lastAnswer.getByText("You said: Are you there?").waitFor();
});

test("with a service worker the page opens while the server is not running", async (t) => {
  const own = await startMock();
  const { page, context } = await openPage(browser, own.url, { serviceWorkers: "allow" });
  t.after(() => context.close());
  const { send, finished, lastAnswer } = controls(page);
  await send("Remember me");
  await finished();
  await page.evaluate(async () => {
    await navigator.serviceWorker.ready;
    while (!navigator.serviceWorker.controller) await new Promise((resolve) => setTimeout(resolve, 50));
  });
  await own.close();
  await page.reload();
  await page.locator("html[data-ready]").waitFor();
  await lastAnswer.getByText("You said: Remember me").waitFor();
  await page.locator("#banner").getByText("does not answer").waitFor();
});

test("devices are listed, removed, and let in by a code", async (t) => {
  const own = await startMock({ lan: true });
  t.after(() => own.close());
  const { page, context } = await openPage(browser, own.url);
  t.after(() => context.close());
  await page.getByRole("button", { name: "Phones and devices" }).click();
  await page.getByText("iPhone, Safari", { exact: true }).waitFor();
  assert.ok(await page.locator(".qr").evaluate((image) => image.decode().then(() => image.naturalWidth > 0)));
  await page.getByText("http://192.168.1.20:8080/pair?token=").waitFor();
  await page.getByRole("button", { name: "Remove iPhone, Safari" }).click();
  await page.getByRole("button", { name: "Remove", exact: true }).last().click();
  await page.getByText("iPhone, Safari", { exact: true }).waitFor({ state: "detached" });
  await page.getByText("Android, Chrome").waitFor();
});
