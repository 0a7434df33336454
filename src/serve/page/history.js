// The list of earlier chats: opens, renames and deletes them; on a narrow screen it slides over the chat.

import { byId, iconButton, make } from "./dom.js";
import { day } from "./format.js";
import { titleOf } from "./conversation.js";

/** @typedef {import("./conversation.js").Chat} Chat */

/**
 * @typedef {object} HistoryActions
 * @property {(id: string) => void} open
 * @property {(chat: Chat) => void} remove
 * @property {(chat: Chat, title: string) => void} rename
 */

/**
 * @param {Chat[]} chats
 * @param {string} current id of the open chat
 * @param {HistoryActions} actions
 */
export function showHistory(chats, current, actions) {
  const list = byId("chats");
  // Drawn anew, the list would lose the focus of the keyboard.
  const focused = document.activeElement?.closest?.("#chats [data-chat]")?.getAttribute("data-chat");
  list.replaceChildren(...chats.map((chat) => row(chat, chat.id === current, actions)));
  byId("no-chats").hidden = chats.length > 0;
  list.hidden = chats.length === 0;
  if (focused) /** @type {HTMLElement | null} */ (list.querySelector(`[data-chat="${CSS.escape(focused)}"] .chat-open`))?.focus();
}

/**
 * @param {Chat} chat
 * @param {boolean} isCurrent
 * @param {HistoryActions} actions
 */
function row(chat, isCurrent, actions) {
  const title = titleOf(chat);
  const open = make(
    "button",
    { type: "button", class: "chat-open", "aria-current": isCurrent ? "true" : null, onclick: () => actions.open(chat.id) },
    make("span", { class: "chat-title" }, title),
    make("span", { class: "chat-day" }, day(chat.updated)),
  );
  /** @type {HTMLLIElement} */
  const item = make(
    "li",
    { class: "chat", "data-chat": chat.id },
    open,
    iconButton("edit", `Rename “${title}”`, () => rename(item, chat, title, actions)),
    iconButton("trash", `Delete “${title}”`, () => actions.remove(chat)),
  );
  return item;
}

/**
 * @param {HTMLElement} item
 * @param {Chat} chat
 * @param {string} title
 * @param {HistoryActions} actions
 */
function rename(item, chat, title, actions) {
  const input = make("input", { class: "chat-rename", "aria-label": "Name of the chat", maxlength: 120 });
  input.value = title;
  const form = make("form", { class: "chat-form" }, input);
  let over = false;
  const finish = (/** @type {boolean} */ keep) => {
    if (over) return;
    over = true;
    actions.rename(chat, keep && input.value.trim() ? input.value.trim() : title);
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    finish(true);
  });
  input.addEventListener("blur", () => finish(true));
  input.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      event.stopPropagation();
      finish(false);
    }
  });
  item.replaceChildren(form);
  input.select();
}

/** Lets the list slide over the chat on a narrow screen. */
export function connectDrawer() {
  const sidebar = byId("sidebar");
  const main = byId("main");
  const scrim = byId("scrim");
  const opener = byId("open-sidebar");
  const narrow = matchMedia("(max-width: 860px)");

  const set = (/** @type {boolean} */ open) => {
    sidebar.classList.toggle("open", open);
    scrim.hidden = !open;
    main.inert = open;
    opener.setAttribute("aria-expanded", String(open));
    if (open) byId("close-sidebar").focus();
  };
  const close = () => {
    if (!sidebar.classList.contains("open")) return;
    set(false);
    opener.focus();
  };
  opener.addEventListener("click", () => set(true));
  byId("close-sidebar").addEventListener("click", close);
  scrim.addEventListener("click", close);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !document.querySelector("dialog[open]")) close();
  });
  narrow.addEventListener("change", () => set(false));
  return { close };
}
