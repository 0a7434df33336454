// What people do with the page, in the order they do it; against the server at DWINDLE_URL, or the mock where it is not set.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { controls, openBrowser, openPage, PHONE } from "./browser.mjs";
import { startMock } from "./mock.mjs";
import { demo, shapes, sizeOf } from "./pictures.mjs";

let browser;
let mock;
let url;

before(async () => {
  if (!process.env.DWINDLE_URL) mock = await startMock();
  url = process.env.DWINDLE_URL ?? mock.url;
  browser = await openBrowser();
});
after(async () => {
  await browser?.close();
  await mock?.close();
});

const picture = () => ({ name: "shapes.png", mimeType: "image/png", buffer: shapes() });

/** Opens the page, collects the bodies of its requests for answers, and closes it after the test. */
async function open(t, options) {
  const opened = await openPage(browser, url, options);
  const bodies = [];
  opened.page.on("request", (request) => {
    if (request.url().endsWith("/v1/chat/completions")) bodies.push(request.postDataJSON());
  });
  t.after(async () => {
    await opened.context.close();
    assert.deepEqual(opened.seen.errors, [], "no error in the console");
    assert.deepEqual(opened.seen.foreign, [], "no request leaves the origin");
  });
  return { ...opened, ...controls(opened.page), bodies };
}

/** The picture parts of a request's last message. */
function sentPictures(body) {
  const content = body.messages[body.messages.length - 1].content;
  return content.filter((part) => part.type === "image_url").map((part) => part.image_url.url);
}

async function describedAndAnswered(page, lastAnswer) {
  const seen = lastAnswer.locator("details.seen").first();
  await seen.waitFor();
  assert.match(await seen.locator("summary").innerText(), /What the describing model saw/);
  assert.notEqual((await seen.locator("p").first().innerText()).trim(), "");
  assert.notEqual((await lastAnswer.locator(".words").innerText()).trim(), "");
  await page.locator(".answer .figures").last().waitFor();
}

test("the first page says what runs where, in two sentences", async (t) => {
  const { page } = await open(t);
  const sentences = await page.locator("#welcome-where").innerText();
  assert.match(sentences, /on this computer/);
  assert.match(sentences, /Nothing leaves it/);
  assert.equal(sentences.match(/[.](\s|$)/g)?.length, 2);
});

test("a chosen picture is described and talked about", async (t) => {
  const { page, send, finished, lastAnswer, bodies } = await open(t);
  const chooser = page.waitForEvent("filechooser");
  await page.getByRole("button", { name: "Add a picture" }).click();
  await (await chooser).setFiles(picture());
  await page.locator(".attached-picture img").waitFor();
  await send("What do you see?");
  await finished();
  await describedAndAnswered(page, lastAnswer);
  const [url] = sentPictures(bodies[0]);
  assert.match(url, /^data:image\/png;base64,/);
  assert.deepEqual(sizeOf(url), { width: 480, height: 320 });
  assert.equal(bodies[0].stream, true);
  assert.match(await page.locator(".answer .figures").innerText(), /tokens\/s/);
  assert.match(await page.locator("#gauges").innerText(), /Context\s*\d.* of \d/);

  // The next turn resends the picture, and its description is not shown a second time.
  await send("What color is the circle?");
  await finished();
  assert.equal(bodies[1].messages.length, 3);
  assert.equal(await lastAnswer.locator("details.seen").count(), 0);
  const first = bodies[1].messages[0].content.find((part) => part.type === "image_url");
  assert.equal(first.image_url.url, url, "the same bytes, so that the server finds its prefix");
});

test("a picture is pasted", async (t) => {
  const { page, context, draft, send, finished, lastAnswer } = await open(t);
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  await page.evaluate(async (base64) => {
    const blob = new Blob([Uint8Array.from(atob(base64), (c) => c.charCodeAt(0))], { type: "image/png" });
    await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
  }, shapes().toString("base64"));
  await draft.focus();
  await page.keyboard.press("Control+V");
  await page.locator(".attached-picture img").waitFor();
  await send("What do you see?");
  await finished();
  await describedAndAnswered(page, lastAnswer);
});

test("a picture is dropped, and large photos are made smaller and upright", async (t) => {
  const { page, send, finished, lastAnswer, bodies } = await open(t);
  const files = [
    { name: "large.png", type: "image/png", data: shapes(3000, 1500).toString("base64") },
    { name: "rotated.jpg", type: "image/jpeg", data: (await demo("07-exif-rotated-180x110.jpg")).toString("base64") },
  ];
  const transfer = await page.evaluateHandle((files) => {
    const transfer = new DataTransfer();
    for (const { name, type, data } of files) transfer.items.add(new File([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))], name, { type }));
    return transfer;
  }, files);
  await page.dispatchEvent("body", "dragover", { dataTransfer: transfer });
  await page.getByText("Drop the picture to add it").waitFor();
  await page.dispatchEvent("body", "drop", { dataTransfer: transfer });
  await page.locator(".attached-picture img").nth(1).waitFor();
  assert.equal(await page.locator("#drop").isVisible(), false);
  await send("What do you see?");
  await finished();
  await describedAndAnswered(page, lastAnswer);
  const [large, rotated] = sentPictures(bodies[0]);
  assert.deepEqual(sizeOf(large), { width: 2048, height: 1024 });
  assert.match(rotated, /^data:image\/jpeg/);
  assert.deepEqual(sizeOf(rotated), { width: 180, height: 110 }, "stored as 110 by 180, with a note to turn it");
});

test("a file that is no picture, and a HEIC photo, get a sentence each", async (t) => {
  const { page } = await open(t);
  const note = page.locator("#composer-note");
  await page.locator("#picture-input").setInputFiles({ name: "notes.png", mimeType: "image/png", buffer: Buffer.from("no picture") });
  await note.getByText("“notes.png” is not a picture that this browser can open").waitFor();
  const heic = Buffer.concat([Buffer.from([0, 0, 0, 24]), Buffer.from("ftypheic"), Buffer.alloc(40)]);
  await page.locator("#picture-input").setInputFiles({ name: "IMG_1.HEIC", mimeType: "", buffer: heic });
  await note.getByText("is a HEIC photo, and this browser cannot open those").waitFor();
  assert.equal(await page.locator(".attached-picture").count(), 0);
});

test("an answer is stopped before its first word, and made again", async (t) => {
  const { page, draft, finished, answers, lastAnswer, bodies } = await open(t);
  // Presses Stop in the moment it is there, before any server can be done.
  await page.evaluate(() => {
    const stop = document.getElementById("stop");
    const observer = new MutationObserver(() => {
      if (stop.hidden) return;
      observer.disconnect();
      stop.click();
    });
    observer.observe(stop, { attributes: true });
  });
  await draft.fill("Write a short story about it.");
  await draft.press("Enter");
  await lastAnswer.getByText("Stopped before the first word.").waitFor();
  await finished();
  await page.getByRole("button", { name: "Answer again" }).click();
  await finished();
  assert.equal(await answers.count(), 1);
  assert.notEqual((await lastAnswer.locator(".words").innerText()).trim(), "");
  // The answer is replaced, not continued.
  await page.getByRole("button", { name: "Answer again" }).click();
  await finished();
  assert.equal(await answers.count(), 1);
  const last = bodies[bodies.length - 1];
  assert.deepEqual(last.messages.map((message) => message.role), ["user"]);
});

test("a message is edited and sent again", async (t) => {
  const { page, send, finished, answers, bodies } = await open(t);
  await send("My name is Ana.");
  await finished();
  await send("What is my name?");
  await finished();
  await page.locator(".message.user").first().hover();
  await page.getByRole("button", { name: "Edit and send again" }).first().click();
  const edit = page.getByRole("textbox", { name: "Edit your message" });
  assert.equal(await edit.inputValue(), "My name is Ana.");
  await edit.fill("My name is Ben.");
  await page.getByRole("button", { name: "Send again", exact: true }).click();
  await finished();
  assert.equal(await answers.count(), 1);
  assert.deepEqual(bodies[2].messages, [{ role: "user", content: "My name is Ben." }]);
  await page.getByText("My name is Ben.", { exact: true }).last().waitFor();
  assert.equal(await page.locator("#thread").getByText("What is my name?").count(), 0);
});

test("instructions and sampling reach the server, and stay", async (t) => {
  const { page, send, finished, bodies } = await open(t);
  await page.getByRole("button", { name: "Settings" }).click();
  await page.getByLabel("What the model should keep in mind").fill("Answer briefly.");
  await page.getByLabel("Also in new chats").check();
  await page.getByText("How answers are chosen (sampling)").click();
  await page.getByLabel("Temperature").fill("0");
  await page.getByLabel("Longest answer").fill("12");
  await page.getByLabel("Top-p").fill("7");
  await page.getByLabel("Top-p").press("Tab");
  await page.getByText("A number from 0 to 1, please.").waitFor();
  await page.getByRole("button", { name: "Close" }).click();
  await page.reload();
  await page.locator("html[data-ready]").waitFor();
  await send("Hello");
  await finished();
  const [body] = bodies;
  assert.deepEqual(body.messages[0], { role: "system", content: "Answer briefly." });
  assert.equal(body.temperature, 0);
  assert.equal(body.max_tokens, 12);
  assert.equal(body.top_p, undefined, "a value out of range is not sent");
});

test("chats are there after a reload, and can be renamed and deleted", async (t) => {
  const { page, send, finished, lastAnswer } = await open(t);
  await page.locator("#picture-input").setInputFiles(picture());
  await page.locator(".attached-picture img").waitFor();
  await send("What do you see?");
  await finished();
  const answer = await lastAnswer.locator(".words").innerText();
  const description = await lastAnswer.locator(".seen p").first().innerText();
  await page.getByRole("button", { name: "New chat" }).first().click();
  await send("Another chat");
  await finished();

  await page.reload();
  await page.locator("html[data-ready]").waitFor();
  assert.equal(await page.locator("#chats .chat").count(), 2);
  await page.getByText("Another chat", { exact: true }).first().waitFor();
  await page.getByRole("button", { name: /^What do you see/ }).click();
  assert.equal(await lastAnswer.locator(".words").innerText(), answer);
  const shown = page.locator(".picture img");
  await shown.waitFor();
  assert.equal(await shown.evaluate((image) => image.decode().then(() => image.naturalWidth)), 480);
  await lastAnswer.locator("summary").click();
  assert.equal(await lastAnswer.locator(".seen p").first().innerText(), description);

  const row = page.locator("#chats .chat", { hasText: "What do you see?" });
  await row.hover();
  await row.getByRole("button", { name: /^Rename/ }).click();
  await page.getByLabel("Name of the chat").fill("Shapes");
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { level: 1, name: "Shapes" }).waitFor();

  const renamed = page.locator("#chats .chat", { hasText: "Shapes" });
  await renamed.hover();
  await renamed.getByRole("button", { name: /^Delete/ }).click();
  await page.getByRole("button", { name: "Delete", exact: true }).click();
  await page.locator("#chats .chat").nth(1).waitFor({ state: "detached" });
  const left = await page.evaluate(async () => {
    const database = await new Promise((resolve) => (indexedDB.open("dwindle").onsuccess = (event) => resolve(event.target.result)));
    const request = database.transaction("pictures").objectStore("pictures").count();
    return new Promise((resolve) => (request.onsuccess = () => resolve(request.result)));
  });
  assert.equal(left, 0, "its picture is gone too");
});

test("chats go to a file and come back, and a damaged file is refused", async (t) => {
  const { page, send, finished, lastAnswer } = await open(t);
  await page.locator("#picture-input").setInputFiles(picture());
  await page.locator(".attached-picture img").waitFor();
  await send("What do you see?");
  await finished();
  const answer = await lastAnswer.locator(".words").innerText();
  await page.getByRole("button", { name: "Export and import" }).click();
  const download = page.waitForEvent("download");
  await page.getByRole("button", { name: "Export all chats" }).click();
  const text = await readFile(await (await download).path(), "utf8");
  const file = JSON.parse(text);
  assert.equal(file.format, "dwindle-chats");
  assert.match(file.chats[0].messages[0].pictures[0].data, /^data:image\/png;base64,/);

  const other = await open(t);
  await other.page.getByRole("button", { name: "Export and import" }).click();
  const take = (content) => other.page.locator("#import-input").setInputFiles({ name: "chats.json", mimeType: "application/json", buffer: Buffer.from(content) });
  await take("{}");
  await other.page.getByText("This file is not an export of chats.").waitFor();
  file.chats[0].messages[1].text = 5;
  await take(JSON.stringify(file));
  await other.page.getByText("chats[0].messages[1].text is not a text").waitFor();
  await take(text);
  await other.page.getByText("1 chat imported.").waitFor();
  await take(text);
  await other.page.getByText("0 chats of 1 imported; the others are here already.").waitFor();
  await other.page.getByRole("button", { name: "Close" }).click();
  await other.page.getByRole("button", { name: /^What do you see/ }).click();
  assert.equal(await other.lastAnswer.locator(".words").innerText(), answer);
  await other.page.locator(".picture img").waitFor();
});

test("a phone's window holds everything", async (t) => {
  const { page, send, finished, lastAnswer } = await open(t, PHONE);
  await page.getByRole("button", { name: "Take a photo" }).first().waitFor();
  assert.equal(await page.locator("#camera-input").getAttribute("capture"), "environment");
  await page.locator("#camera-input").setInputFiles({ name: "photo.jpg", mimeType: "image/jpeg", buffer: await demo("03-photo-640x480.jpg") });
  await page.locator(".attached-picture img").waitFor();
  await send("What do you see?");
  await finished();
  await describedAndAnswered(page, lastAnswer);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth);
  assert.ok(wide <= 375, `nothing is wider than the window (${wide})`);
  for (const name of ["Add a picture", "Take a photo", "Send", "Open the list of chats"]) {
    const box = await page.getByRole("button", { name, exact: true }).last().boundingBox();
    assert.ok(box.width >= 44 && box.height >= 44, `“${name}” is large enough for a thumb`);
    assert.ok(box.x >= 0 && box.x + box.width <= 375 && box.y + box.height <= 740, `“${name}” is in the window`);
  }
  await page.getByRole("button", { name: "Open the list of chats" }).click();
  await page.getByRole("button", { name: /^What do you see/ }).waitFor();
  await page.getByRole("navigation", { name: "Chats" }).getByRole("button", { name: "Close the list of chats" }).click();
  await page.locator("#sidebar").waitFor({ state: "hidden" });
  assert.equal(await page.locator("#main").evaluate((main) => main.inert), false);
});

test("everything is reached by the keyboard alone", async (t) => {
  const { page, lastAnswer, finished } = await open(t);
  const focused = () => page.evaluate(() => document.activeElement?.getAttribute("aria-label") || document.activeElement?.textContent?.trim() || document.activeElement?.tagName);
  /** Presses Tab until the thing with this name has the focus. */
  const reach = async (name) => {
    const way = [];
    for (let presses = 0; presses < 40; presses += 1) {
      await page.keyboard.press("Tab");
      const here = await focused();
      if (here === name) return;
      way.push(here);
    }
    assert.fail(`Tab never reached “${name}”: ${way.join(", ")}`);
  };
  // The skip link is the first, and leads to the message box.
  await page.keyboard.press("Tab");
  assert.equal(await focused(), "Skip to the message box");
  await page.keyboard.press("Enter");
  await page.keyboard.type("Hello from the keyboard");
  await page.keyboard.press("Shift+Enter");
  await page.keyboard.type("with two lines");
  await page.keyboard.press("Enter");
  await finished();
  assert.equal(await page.locator(".bubble").innerText(), "Hello from the keyboard\nwith two lines");
  assert.equal(await page.evaluate(() => document.activeElement?.id), "draft", "the next message can be written at once");

  // A ring shows where the focus is.
  await page.keyboard.press("Shift+Tab");
  const ring = await page.evaluate(() => getComputedStyle(/** @type {Element} */ (document.activeElement)).outlineWidth);
  assert.equal(ring, "3px");

  await page.locator(".skip").focus();
  await reach("Settings");
  await page.keyboard.press("Enter");
  await page.getByRole("dialog", { name: "Settings" }).waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "detached" });
  assert.equal(await focused(), "Settings", "focus is back where it was");

  await reach("Edit and send again");
  await page.keyboard.press("Enter");
  await page.keyboard.press("Control+A");
  await page.keyboard.type("Changed");
  await page.keyboard.press("Control+Enter");
  await page.locator(".bubble", { hasText: "Changed" }).waitFor();
  await finished();
  await page.locator(".skip").focus();
  await reach("Answer again");
  await page.keyboard.press("Enter");
  await lastAnswer.locator(".figures").waitFor();
});

test("screen readers hear whole sentences", async (t) => {
  const { page, send, finished, lastAnswer } = await open(t);
  await page.evaluate(() => {
    window.heard = [];
    new MutationObserver((records) => {
      for (const record of records) for (const node of record.addedNodes) window.heard.push(node.textContent);
    }).observe(document.getElementById("announcer"), { childList: true, characterData: true, subtree: true });
  });
  await send("Write a short story about it.");
  await finished();
  await page.waitForFunction(() => window.heard.includes("The answer is complete."));
  const heard = await page.evaluate(() => window.heard);
  const words = (await lastAnswer.locator(".words").innerText()).replace(/\s+/g, " ").trim();
  const said = heard.filter((line) => line !== "The answer is complete." && words.includes(line));
  assert.equal(said.join(" ").replace(/\s+/g, " "), words, "all of the answer, in order");
  assert.ok(said.slice(0, -1).every((line) => /[.!?…:"”]$/.test(line)), `pieces end where sentences do: ${JSON.stringify(said)}`);
});
