// What a chat is, and how it becomes the messages of a request. Knows neither the screen nor the network.

import { uniqueId } from "./dom.js";

/**
 * @typedef {object} Message
 * @property {string} id
 * @property {"user" | "assistant"} role
 * @property {string} text
 * @property {string[]} pictures ids of the store's pictures
 * @property {"done" | "writing" | "stopped" | "failed"} state
 * @property {string[]} [descriptions] what the describing model saw
 * @property {string} [finish]
 * @property {number} [forgotten] turns that the server left out
 * @property {import("./api.js").Timings | null} [timings]
 * @property {import("./api.js").Usage} [usage]
 * @property {{kind: import("./api.js").FailureKind, message: string, details: any}} [failure]
 */

/**
 * @typedef {object} Chat
 * @property {string} id
 * @property {string} title
 * @property {number} created
 * @property {number} updated
 * @property {string} system instructions for the model
 * @property {number} skipped messages at the start that are no longer sent
 * @property {Message[]} messages
 */

/** @returns {Chat} */
export function newChat(system = "") {
  const now = Date.now();
  return { id: uniqueId(), title: "", created: now, updated: now, system, skipped: 0, messages: [] };
}

/** @returns {Message} */
export function newMessage(/** @type {"user" | "assistant"} */ role, text = "", /** @type {string[]} */ pictures = []) {
  return { id: uniqueId(), role, text, pictures, state: role === "user" ? "done" : "writing" };
}

/** A title from what was said first. */
export function titleOf(/** @type {Chat} */ chat) {
  if (chat.title) return chat.title;
  const first = chat.messages.find((message) => message.role === "user");
  if (!first) return "New chat";
  const line = first.text.trim().replace(/\s+/g, " ");
  if (line === "") return "A picture";
  const characters = Array.from(line);
  return characters.length > 60 ? `${characters.slice(0, 59).join("").trimEnd()}…` : line;
}

/** Messages that are sent: not the skipped ones, and no answers without a word. */
function sent(/** @type {Chat} */ chat) {
  return chat.messages.slice(chat.skipped).filter((message) => message.role === "user" || message.text !== "");
}

/**
 * The request's messages. Neighbours of one role become one message: many chat templates insist on turns.
 * @param {Chat} chat
 * @param {(id: string) => Promise<string | null>} dataUrl of a picture; null where there is none or it is not to be sent
 */
export async function requestMessages(chat, dataUrl) {
  /** @type {{role: string, parts: any[]}[]} */
  const turns = [];
  for (const message of sent(chat)) {
    const parts = [];
    for (const id of message.pictures) {
      const url = await dataUrl(id);
      if (url) parts.push({ type: "image_url", image_url: { url } });
    }
    if (message.text !== "") parts.push({ type: "text", text: message.text });
    const last = turns[turns.length - 1];
    if (last?.role === message.role) last.parts.push(...parts);
    else turns.push({ role: message.role, parts });
  }
  const messages = turns.map(({ role, parts }) => {
    const onlyText = parts.every((part) => part.type === "text");
    return { role, content: onlyText ? parts.map((part) => part.text).join("\n\n") : parts };
  });
  const system = chat.system.trim();
  return system ? [{ role: "system", content: system }, ...messages] : messages;
}

/** A rough size of a message in characters; a picture counts as its description or as a page of text. */
function weight(/** @type {Message} */ message) {
  return message.text.length + message.pictures.length * 1500 + 20;
}

/**
 * Leaves the oldest turns out of what is sent until about half of the context is free.
 * Returns false where only the last message is left, so that nothing can be left out.
 * @param {Chat} chat
 * @param {{promptTokens?: number, context?: number}} details of the failure
 */
export function shorten(chat, details) {
  const last = chat.messages.map((message) => message.role).lastIndexOf("user");
  if (last <= chat.skipped) return false;
  const share = details.promptTokens && details.context ? (0.5 * details.context) / details.promptTokens : 0.5;
  const all = chat.messages.slice(chat.skipped, last + 1).reduce((sum, message) => sum + weight(message), 0);
  let left = all;
  let skipped = chat.skipped;
  while (skipped < last && left > all * share) {
    // A turn is left out whole: what is sent begins with a message of the user.
    do {
      left -= weight(chat.messages[skipped]);
      skipped += 1;
    } while (skipped < last && chat.messages[skipped].role !== "user");
  }
  if (skipped === chat.skipped) return false;
  chat.skipped = skipped;
  return true;
}

/**
 * The descriptions of an answer that no earlier answer of the chat shows: a picture is resent, and described, every turn.
 * @param {Chat} chat
 * @param {Message} answer
 */
export function newDescriptions(chat, answer) {
  const earlier = new Set();
  for (const message of chat.messages) {
    if (message === answer) break;
    for (const text of message.descriptions ?? []) earlier.add(text);
  }
  return (answer.descriptions ?? []).filter((text) => !earlier.has(text));
}

/** Tokens that the chat took at its last answer; null before there is one. */
export function usedTokens(/** @type {Chat} */ chat) {
  for (const message of [...chat.messages].reverse()) {
    if (message.usage) return message.usage.prompt_tokens + message.usage.completion_tokens;
  }
  return null;
}
