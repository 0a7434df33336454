// Dialogs: a frame with a heading and a close button, a question, and the view of one picture.

import { iconButton, make, uniqueId } from "./dom.js";

/**
 * Opens a dialog that is removed when it closes. Focus goes back to where it was.
 * @param {string} heading
 * @param {(Node | null | false)[]} content
 * @param {string} [kind] class
 */
export function openDialog(heading, content, kind = "") {
  const id = `heading-${uniqueId()}`;
  const before = document.activeElement;
  /** @type {HTMLDialogElement} */
  const dialog = make(
    "dialog",
    { class: `dialog ${kind}`, "aria-labelledby": id },
    make("div", { class: "dialog-head" }, make("h2", { id, tabindex: -1 }, heading), iconButton("close", "Close", () => dialog.close())),
    make("div", { class: "dialog-body" }, ...content.filter((part) => part !== null)),
  );
  dialog.addEventListener("close", () => {
    dialog.remove();
    if (before instanceof HTMLElement && before.isConnected) before.focus();
  });
  // A press beside the dialog closes it.
  dialog.addEventListener("pointerdown", (event) => {
    const box = dialog.getBoundingClientRect();
    const inside = event.clientX >= box.left && event.clientX <= box.right && event.clientY >= box.top && event.clientY <= box.bottom;
    if (event.target === dialog && !inside) dialog.close();
  });
  document.body.append(dialog);
  dialog.showModal();
  dialog.querySelector("h2")?.focus();
  return dialog;
}

/**
 * Asks before something is lost.
 * @param {string} question
 * @param {string} explanation
 * @param {string} action
 * @returns {Promise<boolean>}
 */
export function confirmed(question, explanation, action) {
  return new Promise((resolve) => {
    let answer = false;
    const finish = (/** @type {boolean} */ value) => {
      answer = value;
      dialog.close();
    };
    const dialog = openDialog(
      question,
      [
        make("p", {}, explanation),
        make(
          "div",
          { class: "dialog-actions" },
          make("button", { type: "button", class: "button", onclick: () => finish(false) }, "Cancel"),
          make("button", { type: "button", class: "button danger", onclick: () => finish(true) }, action),
        ),
      ],
      "question",
    );
    dialog.addEventListener("close", () => resolve(answer));
  });
}

/**
 * Shows a picture as large as the window allows.
 * @param {string} url
 * @param {string} name
 * @param {string} description
 */
export function showPicture(url, name, description) {
  openDialog(name, [make("img", { src: url, alt: description, class: "large" })], "viewer");
}
