// The modules that need no browser: events, conversations, files of chats, names of devices, sentences.

import assert from "node:assert/strict";
import { test } from "node:test";

const page = "../../src/serve/page";
const { EventParser } = await import(`${page}/events.js`);
const { newChat, newMessage, requestMessages, shorten, titleOf, newDescriptions } = await import(`${page}/conversation.js`);
const { readArchive } = await import(`${page}/archive.js`);
const { deviceName } = await import(`${page}/devices.js`);
const format = await import(`${page}/format.js`);

test("events are the same however the stream is cut", () => {
  const stream =
    ': dwindle {"phase":"described","picture":1,"pictures":1,"text":"a: b\\n\\ndata: c","cached":false}\n\n' +
    ": another comment\n: dwindle not JSON\n: dwindle {}\n\n" +
    'data: {"a":1}\r\n\r\ndata: first\ndata: second\n\ndata:[DONE]\n\ndata: without an end';
  const expected = [
    { kind: "progress", progress: { phase: "described", picture: 1, pictures: 1, text: "a: b\n\ndata: c", cached: false } },
    { kind: "data", text: '{"a":1}' },
    { kind: "data", text: "first\nsecond" },
    { kind: "data", text: "[DONE]" },
  ];
  for (let size = 1; size <= stream.length; size += 1) {
    const parser = new EventParser();
    const events = [];
    for (let at = 0; at < stream.length; at += size) events.push(...parser.push(stream.slice(at, at + size)));
    assert.deepEqual(events, expected, `pieces of ${size}`);
  }
});

function chatOf(...messages) {
  const chat = newChat();
  for (const [role, text, pictures = []] of messages) chat.messages.push({ ...newMessage(role, text, pictures), state: "done" });
  return chat;
}

test("a chat becomes turns that alternate", async () => {
  const chat = chatOf(["user", "one", ["p"]], ["assistant", ""], ["user", "two"], ["assistant", "three"], ["user", "four", ["gone"]]);
  chat.system = " Be brief. ";
  const messages = await requestMessages(chat, async (id) => (id === "p" ? "data:image/png;base64,AA==" : null));
  assert.deepEqual(messages, [
    { role: "system", content: "Be brief." },
    { role: "user", content: [{ type: "image_url", image_url: { url: "data:image/png;base64,AA==" } }, { type: "text", text: "one" }, { type: "text", text: "two" }] },
    { role: "assistant", content: "three" },
    { role: "user", content: "four" },
  ]);
});

test("shortening leaves out whole turns, the oldest first, and never the last message", () => {
  const long = "word ".repeat(100);
  const chat = chatOf(["user", long], ["assistant", long], ["user", long], ["assistant", long], ["user", "last"], ["assistant", ""]);
  assert.ok(shorten(chat, { promptTokens: 5000, context: 4096 }));
  assert.equal(chat.messages[chat.skipped].role, "user");
  assert.equal(chat.skipped, 4);
  assert.equal(shorten(chat, { promptTokens: 5000, context: 4096 }), false);
  assert.equal(chat.skipped, 4);
});

test("a title is the first line, short", () => {
  assert.equal(titleOf(chatOf(["user", "  What\nis this? "])), "What is this?");
  assert.equal(titleOf(chatOf(["user", "", ["p"]])), "A picture");
  assert.equal(titleOf(chatOf()), "New chat");
  assert.equal(Array.from(titleOf(chatOf(["user", "😀".repeat(100)]))).length, 60);
});

test("a description is shown once in a chat", () => {
  const chat = chatOf(["user", "a", ["p"]], ["assistant", "b"], ["user", "c"], ["assistant", "d"]);
  chat.messages[1].descriptions = ["a circle"];
  chat.messages[3].descriptions = ["a circle", "a square"];
  assert.deepEqual(newDescriptions(chat, chat.messages[1]), ["a circle"]);
  assert.deepEqual(newDescriptions(chat, chat.messages[3]), ["a square"]);
});

test("a file of chats is believed in nothing", () => {
  const message = { role: "user", text: "x", pictures: [{ name: "a", width: 1, height: 1, data: "data:image/png;base64,AAAA" }] };
  const chat = { id: "c1", title: "", created: 1, updated: 2, system: "", skipped: 0, messages: [message] };
  const file = (change) => JSON.stringify({ format: "dwindle-chats", version: 1, chats: [{ ...chat, ...change }] });
  const good = readArchive(file({}));
  assert.equal(good.pictures[0].blob.size, 3);
  assert.notEqual(good.chats[0].messages[0].pictures[0], "a");
  const bad = [
    ["not JSON", /not JSON/],
    ["null", /not an export/],
    ['{"format":"dwindle-chats","version":2}', /version 2/],
    [file({ id: "../x" }), /chats\[0\]\.id is not a name/],
    [file({ messages: null }), /chats\[0\]\.messages is not a list/],
    [file({ created: "today" }), /chats\[0\]\.created is not a number/],
    [file({ messages: [{ ...message, role: "system" }] }), /messages\[0\]\.role/],
    [file({ messages: [{ ...message, pictures: [{ ...message.pictures[0], data: "data:image/svg+xml;base64,AAAA" }] }] }), /pictures\[0\]\.data/],
    [file({ messages: [{ ...message, pictures: [{ ...message.pictures[0], data: "https://example.org/a.png" }] }] }), /pictures\[0\]\.data/],
  ];
  for (const [content, message] of bad) assert.throws(() => readArchive(content), message);
});

test("numbers and names are for people", () => {
  assert.equal(format.size(2_040_109_465), "1.9 GiB");
  assert.equal(format.size(340), "340 B");
  assert.equal(format.duration(1234), "1.2 s");
  assert.equal(format.duration(125_000), "2 min 5 s");
  assert.equal(format.plural(1, "token"), "1 token");
  assert.equal(deviceName("Mozilla/5.0 (Linux; Android 15) AppleWebKit/537.36 Chrome/131.0 Mobile Safari/537.36"), "Android, Chrome");
  assert.equal(deviceName("curl/8"), "curl/8");
});
