// Chats as a file: writes them with their pictures, and reads such a file back after checking every field.

import { uniqueId } from "./dom.js";
import { dataUrl } from "./store.js";

/** @typedef {import("./conversation.js").Chat} Chat */

const FORMAT = "dwindle-chats";
const VERSION = 1;
const PICTURE = /^data:(image\/(?:png|jpeg|webp|gif));base64,([A-Za-z0-9+/]+=*)$/;

/** A file that is not an export of chats, or a damaged one; the message says where. */
export class ArchiveError extends Error {}

/**
 * @param {import("./store.js").Store} store
 * @returns {Promise<Blob>}
 */
export async function exportChats(store) {
  const chats = [];
  for (const chat of await store.chats()) {
    const messages = [];
    for (const message of chat.messages) {
      const pictures = [];
      for (const id of message.pictures) {
        const picture = await store.picture(id);
        if (picture) pictures.push({ name: picture.name, width: picture.width, height: picture.height, data: await dataUrl(picture.blob) });
      }
      messages.push({ ...message, pictures });
    }
    chats.push({ ...chat, messages });
  }
  const text = JSON.stringify({ format: FORMAT, version: VERSION, exported: new Date().toISOString(), chats }, null, 1);
  return new Blob([text], { type: "application/json" });
}

/** @param {boolean} holds @param {string} place @param {string} wanted @returns {asserts holds} */
function check(holds, place, wanted) {
  if (!holds) throw new ArchiveError(`The file is damaged: ${place} is not ${wanted}.`);
}

/** @param {any} value @param {string} place */
function text(value, place) {
  check(typeof value === "string", place, "a text");
  return /** @type {string} */ (value);
}

/** @param {any} value @param {string} place */
function number(value, place) {
  check(typeof value === "number" && Number.isFinite(value) && value >= 0, place, "a number");
  return /** @type {number} */ (value);
}

/** @param {any} value @param {string} place */
function array(value, place) {
  check(Array.isArray(value), place, "a list");
  return /** @type {any[]} */ (value);
}

/**
 * @param {any} value
 * @param {string} place
 * @param {string} chat
 * @returns {import("./store.js").Picture}
 */
function readPicture(value, place, chat) {
  const match = PICTURE.exec(text(value?.data, `${place}.data`));
  check(match !== null, `${place}.data`, "a picture in base64");
  const bytes = Uint8Array.from(atob(match[2]), (character) => character.charCodeAt(0));
  return {
    id: uniqueId(),
    chat,
    blob: new Blob([bytes], { type: match[1] }),
    name: text(value.name, `${place}.name`),
    width: number(value.width, `${place}.width`),
    height: number(value.height, `${place}.height`),
  };
}

/** Numbers of an object, by these names; what is something else is left out. */
function numbers(/** @type {any} */ value) {
  if (typeof value !== "object" || value === null) return undefined;
  return Object.fromEntries(Object.entries(value).filter(([, number]) => typeof number === "number"));
}

/**
 * @param {any} value
 * @param {string} place
 * @param {string} chat
 * @param {import("./store.js").Picture[]} pictures found ones are added
 * @returns {import("./conversation.js").Message}
 */
function readMessage(value, place, chat, pictures) {
  check(value?.role === "user" || value?.role === "assistant", `${place}.role`, "“user” or “assistant”");
  const own = array(value.pictures ?? [], `${place}.pictures`).map((picture, index) => readPicture(picture, `${place}.pictures[${index}]`, chat));
  pictures.push(...own);
  const usage = /** @type {any} */ (numbers(value.usage));
  return {
    id: uniqueId(),
    role: value.role,
    text: text(value.text, `${place}.text`),
    pictures: own.map((picture) => picture.id),
    state: value.state === "stopped" || value.state === "failed" ? "stopped" : "done",
    descriptions: array(value.descriptions ?? [], `${place}.descriptions`).map((part, index) => text(part, `${place}.descriptions[${index}]`)),
    finish: typeof value.finish === "string" ? value.finish : undefined,
    timings: numbers(value.timings) ?? null,
    usage: usage?.prompt_tokens !== undefined && usage?.completion_tokens !== undefined ? usage : undefined,
  };
}

/**
 * Reads a file's chats without storing them; a chat that is here already in a newer state is left out.
 * @param {string} content
 * @returns {{chats: Chat[], pictures: import("./store.js").Picture[]}}
 */
export function readArchive(content) {
  let file;
  try {
    file = JSON.parse(content);
  } catch {
    throw new ArchiveError("This file is not an export of chats: it is not JSON.");
  }
  if (file?.format !== FORMAT) throw new ArchiveError("This file is not an export of chats.");
  if (file.version !== VERSION) throw new ArchiveError(`This export has version ${file.version}; this page reads version ${VERSION}.`);
  /** @type {import("./store.js").Picture[]} */
  const pictures = [];
  const chats = array(file.chats, "chats").map((value, index) => {
    const place = `chats[${index}]`;
    const id = text(value?.id, `${place}.id`);
    check(/^[\w-]{1,64}$/.test(id), `${place}.id`, "a name");
    const messages = array(value.messages, `${place}.messages`).map((message, at) => readMessage(message, `${place}.messages[${at}]`, id, pictures));
    return {
      id,
      title: text(value.title ?? "", `${place}.title`),
      created: number(value.created, `${place}.created`),
      updated: number(value.updated, `${place}.updated`),
      system: text(value.system ?? "", `${place}.system`),
      skipped: Math.min(Math.floor(number(value.skipped ?? 0, `${place}.skipped`)), messages.length),
      messages,
    };
  });
  return { chats, pictures };
}

/**
 * Stores the chats of a file and returns how many; those that are here in the same or a newer state stay as they are.
 * @param {import("./store.js").Store} store
 * @param {string} content
 */
export async function importChats(store, content) {
  const { chats, pictures } = readArchive(content);
  let stored = 0;
  for (const chat of chats) {
    const here = await store.chat(chat.id);
    if (here && here.updated >= chat.updated) continue;
    for (const picture of pictures) if (picture.chat === chat.id) await store.savePicture(picture);
    await store.saveChat(chat);
    await store.removeUnused(chat);
    stored += 1;
  }
  return { stored, found: chats.length };
}
