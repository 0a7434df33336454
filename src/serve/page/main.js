// The page: holds the open chat, and connects the parts.

import { setApiKey } from "./api.js";
import { Announcer } from "./announcer.js";
import { openArchive } from "./archive-dialog.js";
import { Composer } from "./composer.js";
import { Connection } from "./connection.js";
import { newChat, newMessage, requestMessages, shorten, titleOf, usedTokens } from "./conversation.js";
import { openDevices } from "./devices.js";
import { confirmed } from "./dialog.js";
import { byId, drawIcons, uniqueId } from "./dom.js";
import { showGauges } from "./gauges.js";
import { connectDrawer, showHistory } from "./history.js";
import { DEFAULTS, openSettings } from "./settings.js";
import { connectSources } from "./sources.js";
import { dataUrl, Store } from "./store.js";
import { Thread } from "./thread.js";
import { takeTurn } from "./turn.js";

/** @typedef {import("./conversation.js").Chat} Chat */
/** @typedef {import("./conversation.js").Message} Message */

drawIcons(document);
const store = await Store.open();
const announcer = new Announcer(byId("announcer"));
const say = (/** @type {string} */ sentence) => {
  announcer.say(sentence);
  toast(sentence);
};

/** @type {import("./settings.js").Settings} */
let settings = { ...DEFAULTS, ...(await store.setting("settings", {})) };
setApiKey(settings.apiKey);
announcer.reading = settings.readAloud;

/** @type {import("./api.js").Info | null} */
let info = null;
let chat = newChat(settings.instructions);
/** @type {AbortController | null} the answer that is being written */
let writing = null;

// ---- Short sentences at the edge of the screen ----

/** @type {number | undefined} */
let toastTimer;
function toast(/** @type {string} */ sentence) {
  const element = byId("toast");
  // Screen readers have it from the announcer.
  element.setAttribute("aria-hidden", "true");
  element.textContent = sentence;
  element.classList.add("shown");
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => element.classList.remove("shown"), 3000);
}

// ---- Pictures ----

/** @type {Map<string, {url: string, name: string}>} */
const urls = new Map();

async function pictureUrl(/** @type {string} */ id) {
  const known = urls.get(id);
  if (known) return known;
  const picture = await store.picture(id);
  if (!picture) return null;
  const shown = { url: URL.createObjectURL(picture.blob), name: picture.name };
  urls.set(id, shown);
  return shown;
}

function forgetUrls() {
  for (const { url } of urls.values()) URL.revokeObjectURL(url);
  urls.clear();
}

function mayAddPictures() {
  if (info && !info.sees) {
    composer.note(`“${info.model}” cannot see pictures: it was built for text alone. Start Dwindle with a model that sees, such as one with LLaVA-OneVision, to talk about pictures.`);
    return false;
  }
  return true;
}

// ---- The open chat ----

async function saveChat() {
  await store.saveChat(chat);
}

async function listChats() {
  showHistory(await store.chats(), chat.id, { open: (id) => void openChat(id), remove: (other) => void removeChat(other), rename: (other, title) => void renameChat(other, title) });
}

function showChat() {
  forgetUrls();
  thread.show(chat);
  showTitle();
}

function showTitle() {
  const title = titleOf(chat);
  byId("title").textContent = title;
  document.title = chat.messages.length > 0 ? `${title} · Dwindle` : "Dwindle";
  showGauges(info, usedTokens(chat));
}

async function stopWriting() {
  if (!writing) return;
  writing.abort();
  await turnOver;
}

async function startNew() {
  await stopWriting();
  drawer.close();
  chat = newChat(settings.instructions);
  showChat();
  composer.note("");
  composer.focus();
  await listChats();
}

async function openChat(/** @type {string} */ id) {
  await stopWriting();
  const found = await store.chat(id);
  drawer.close();
  if (!found) return listChats();
  chat = found;
  for (const message of chat.messages) if (message.state === "writing") message.state = "stopped";
  composer.note("");
  showChat();
  await store.saveSetting("open", id);
  await listChats();
}

async function removeChat(/** @type {Chat} */ other) {
  if (!(await confirmed("Delete this chat?", `“${titleOf(other)}” and its pictures are removed from this browser.`, "Delete"))) return;
  if (other.id === chat.id) await stopWriting();
  await store.removeChat(other.id);
  if (other.id === chat.id) await startNew();
  else await listChats();
  say("The chat was deleted.");
}

async function renameChat(/** @type {Chat} */ other, /** @type {string} */ title) {
  // The open chat is newer than what the list was drawn from.
  const target = other.id === chat.id ? chat : other;
  if (title !== titleOf(target)) {
    target.title = title;
    await store.saveChat(target);
  }
  showTitle();
  await listChats();
}

// ---- Turns ----

/** @type {Promise<void>} */
let turnOver = Promise.resolve();

async function send(/** @type {string} */ text, /** @type {import("./intake.js").Prepared[]} */ prepared) {
  const pictures = [];
  for (const picture of prepared) {
    const id = uniqueId();
    await store.savePicture({ id, chat: chat.id, ...picture });
    pictures.push(id);
  }
  const message = newMessage("user", text, pictures);
  chat.messages.push(message);
  thread.addUser(message);
  await write();
}

/** Replaces the last answer. */
async function regenerate() {
  if (writing) return;
  while (chat.messages[chat.messages.length - 1]?.role === "assistant") chat.messages.pop();
  thread.show(chat);
  await write();
}

/** Sends a message again in other words; what came after it is dropped. */
async function resend(/** @type {Message} */ message, /** @type {string} */ text) {
  await stopWriting();
  const index = chat.messages.indexOf(message);
  if (index < 0) return;
  chat.messages.length = index + 1;
  chat.skipped = Math.min(chat.skipped, index);
  message.text = text;
  thread.show(chat);
  await write();
  await store.removeUnused(chat);
}

async function shortenAndRetry() {
  const failure = chat.messages[chat.messages.length - 1]?.failure;
  if (shorten(chat, failure?.details ?? {})) await regenerate();
  else say("The last message alone is too long. Edit it, or start a new chat.");
}

async function body() {
  const picture = async (/** @type {string} */ id) => {
    const found = info && !info.sees ? null : await store.picture(id);
    return found ? dataUrl(found.blob) : null;
  };
  return {
    model: info?.model ?? "default",
    messages: await requestMessages(chat, picture),
    stream: true,
    stream_options: { include_usage: true },
    ...settings.sampling,
  };
}

/** Lets the model answer what the chat ends with. */
async function write() {
  writing = new AbortController();
  const written = chat;
  const message = newMessage("assistant");
  chat.messages.push(message);
  chat.updated = Date.now();
  const view = thread.addAnswer(message);
  composer.setBusy(true);
  const run = async () => {
    await store.saveChat(written);
    await store.saveSetting("open", written.id);
    showTitle();
    await listChats();
    const signal = /** @type {AbortController} */ (writing).signal;
    await takeTurn({ chat: written, message, view, body, signal, announcer, drawn: () => thread.keepUp(), save: () => store.saveChat(written) });
    written.updated = Date.now();
    await store.saveChat(written);
  };
  turnOver = run().finally(() => {
    writing = null;
    composer.setBusy(false);
  });
  await turnOver;
  if (message.failure) announcer.say(`${message.failure.message} There are buttons below the message.`);
  else if (message.state === "stopped") announcer.say("Stopped.");
  else announcer.say("The answer is complete.");
  showTitle();
  await listChats();
  void connection.look();
}

// ---- What the server says about itself ----

function updateInfo(/** @type {import("./api.js").Info} */ news) {
  info = news;
  byId("model").textContent = info.describer ? `${info.model} · looks with ${info.describer}` : info.model;
  byId("open-devices").hidden = !info.local;
  const picture = byId("add-picture");
  picture.classList.toggle("off", !info.sees);
  picture.title = info.sees ? "Add a picture" : "This model cannot see pictures";
  byId("welcome-title").textContent = info.sees ? "Talk about your pictures" : "Talk with a model of your own";
  byId("welcome-where").textContent = whatRunsWhere(info);
  showGauges(info, usedTokens(chat));
}

/** Two sentences for somebody who is here for the first time. */
function whatRunsWhere(/** @type {import("./api.js").Info} */ { local, sees, describer, host }) {
  const models = !sees ? "A model that talks runs" : describer ? "One model looks at your pictures, another talks about them; both run" : "A model that looks at pictures and talks about them runs";
  return local
    ? `${models} on this computer. Nothing leaves it: no account, no cloud, no internet needed.`
    : `${models} on the computer ${host ?? location.hostname} in your home. What you write and show goes there and nowhere else.`;
}

// ---- Start ----

const drawer = connectDrawer();
const composer = new Composer({ send: (text, pictures) => void send(text, pictures), stop: () => void stopWriting(), say });
const thread = new Thread({
  say,
  pictureUrl,
  regenerate: () => void regenerate(),
  resend: (message, text) => void resend(message, text),
  startNew: () => void startNew(),
  shortenAndRetry: () => void shortenAndRetry(),
  describer: () => info?.describer ?? "",
});
const connection = new Connection(updateInfo, say);
connectSources((files) => void composer.add(files), mayAddPictures);

for (const id of ["new-chat", "bar-new-chat"]) byId(id).addEventListener("click", () => void startNew());
/** @type {Record<string, () => void>} */
const panels = {
  "open-archive": () => void openArchive(store, say, () => void listChats()),
  "open-devices": () => info && openDevices(info, say),
  "open-settings": () =>
    void openSettings({
      settings,
      info,
      system: chat.system,
      save: (changed) => {
        settings = changed;
        setApiKey(settings.apiKey);
        announcer.reading = settings.readAloud;
        void store.saveSetting("settings", settings).then(() => connection.look());
      },
      saveSystem: (system) => {
        chat.system = system;
        if (chat.messages.length > 0) void saveChat();
      },
    }),
};
for (const [id, openPanel] of Object.entries(panels)) {
  byId(id).addEventListener("click", () => {
    // A panel stands over the chat, and gives the focus back to it.
    drawer.close();
    openPanel();
  });
}
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !document.querySelector("dialog[open]")) void stopWriting();
});

const open = await store.setting("open", "");
if (open && (await store.chat(open))) await openChat(open);
else {
  showChat();
  await listChats();
}
if (!store.lasting) say("This browser keeps no chats: they are gone when the tab is closed.");
await connection.look();
document.documentElement.dataset.ready = "";

// Only where the address is a secure one; on plain http at home everything works without it.
if ("serviceWorker" in navigator && window.isSecureContext) {
  navigator.serviceWorker.register("/page/worker.js", { scope: "/" }).catch(() => {
    // The page needs no worker; it opens only while the server runs, then.
  });
}
