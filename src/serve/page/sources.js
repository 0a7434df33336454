// Where pictures come from: the file chooser, the camera, the clipboard, and files dropped on the page.

import { byId } from "./dom.js";

/** @returns {File[]} files that may be pictures; an unreadable one gets its own message later */
function files(/** @type {DataTransfer | null} */ transfer) {
  return transfer ? Array.from(transfer.files) : [];
}

/**
 * @param {(files: File[]) => void} take
 * @param {() => boolean} allowed says why not, where pictures cannot be taken
 */
export function connectSources(take, allowed) {
  /** @type {[string, string[]][]} */
  const inputs = [
    ["picture-input", ["add-picture", "welcome-picture"]],
    ["camera-input", ["take-photo", "welcome-camera"]],
  ];
  for (const [inputId, buttons] of inputs) {
    const input = /** @type {HTMLInputElement} */ (byId(inputId));
    for (const button of buttons) {
      byId(button).addEventListener("click", () => {
        if (allowed()) input.click();
      });
    }
    input.addEventListener("change", () => {
      const chosen = Array.from(input.files ?? []);
      // The same file can be chosen again.
      input.value = "";
      if (chosen.length > 0) take(chosen);
    });
  }

  document.addEventListener("paste", (event) => {
    const pasted = files(event.clipboardData).filter((file) => file.type.startsWith("image/"));
    if (pasted.length === 0 || document.querySelector("dialog[open]")) return;
    event.preventDefault();
    if (allowed()) take(pasted);
  });

  const overlay = byId("drop");
  const carriesFiles = (/** @type {DragEvent} */ event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragover", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    overlay.hidden = false;
  });
  document.addEventListener("dragleave", (event) => {
    // Without a related element the pointer has left the window.
    if (!event.relatedTarget) overlay.hidden = true;
  });
  document.addEventListener("drop", (event) => {
    overlay.hidden = true;
    if (!carriesFiles(event)) return;
    // Without this the browser would leave the page and show the file.
    event.preventDefault();
    const dropped = files(event.dataTransfer);
    if (dropped.length > 0 && allowed()) take(dropped);
  });
}
