// The dialog that exports all chats to a file, and imports them from one.

import { exportChats, importChats } from "./archive.js";
import { iconButton, make } from "./dom.js";
import { openDialog } from "./dialog.js";
import { plural } from "./format.js";

/**
 * @param {import("./store.js").Store} store
 * @param {(sentence: string) => void} say
 * @param {() => void} changed
 */
export function openArchive(store, say, changed) {
  const note = make("p", { class: "note", role: "status" });
  const input = make("input", { type: "file", class: "hidden", id: "import-input", accept: ".json,application/json", tabindex: -1, "aria-label": "File with chats" });
  input.addEventListener("change", async () => {
    const file = input.files?.[0];
    input.value = "";
    if (!file) return;
    note.textContent = "Reading…";
    try {
      const { stored, found } = await importChats(store, await file.text());
      note.textContent = stored === found ? `${plural(stored, "chat")} imported.` : `${plural(stored, "chat")} of ${found} imported; the others are here already.`;
      changed();
    } catch (error) {
      note.textContent = /** @type {Error} */ (error).message;
    }
  });
  const save = async () => {
    const blob = await exportChats(store);
    const link = make("a", { href: URL.createObjectURL(blob), download: `dwindle-chats-${new Date().toISOString().slice(0, 10)}.json` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    say("The chats were written to a file.");
  };
  openDialog("Export and import", [
    make("p", {}, "Chats are kept in this browser alone. A file takes them to another device, or keeps them safe: it holds all chats with their pictures."),
    make(
      "div",
      { class: "dialog-actions start" },
      iconButton("down", "Export all chats", save, { text: true }),
      iconButton("box", "Import a file…", () => input.click(), { text: true }),
    ),
    input,
    note,
  ]);
}
