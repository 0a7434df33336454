// Where a message is written: text that grows, pictures to send, send and stop.

import { byId, iconButton, make } from "./dom.js";
import { PictureError, prepare } from "./intake.js";
import { plural } from "./format.js";

/** @typedef {import("./intake.js").Prepared} Prepared */

/** More pictures at once than any context holds. */
const MOST_PICTURES = 8;

export class Composer {
  /** @type {{prepared: Prepared, url: string, row: HTMLElement}[]} */
  #pictures = [];
  #pending = 0;
  #busy = false;

  /**
   * @param {object} actions
   * @param {(text: string, pictures: Prepared[]) => void} actions.send
   * @param {() => void} actions.stop
   * @param {(sentence: string) => void} actions.say
   */
  constructor(actions) {
    this.actions = actions;
    this.draft = /** @type {HTMLTextAreaElement} */ (byId("draft"));
    this.list = byId("attached");
    this.noteLine = byId("composer-note");
    this.sendButton = /** @type {HTMLButtonElement} */ (byId("send"));
    this.stopButton = byId("stop");
    this.draft.addEventListener("input", () => this.#grow());
    this.draft.addEventListener("keydown", (event) => {
      // Input methods confirm a word with Enter; on a touch keyboard Enter makes a line.
      if (event.key !== "Enter" || event.shiftKey || event.isComposing || matchMedia("(pointer: coarse)").matches) return;
      event.preventDefault();
      this.#submit();
    });
    byId("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    this.stopButton.addEventListener("click", () => actions.stop());
    this.#changed();
  }

  #grow() {
    this.draft.style.height = "auto";
    this.draft.style.height = `${this.draft.scrollHeight}px`;
    this.#changed();
  }

  #changed() {
    const empty = this.draft.value.trim() === "" && this.#pictures.length === 0;
    this.sendButton.disabled = empty || this.#pending > 0;
    this.list.hidden = this.list.children.length === 0;
  }

  #submit() {
    if (this.#busy || this.#pending > 0) return;
    const text = this.draft.value.trim();
    if (text === "" && this.#pictures.length === 0) return;
    const pictures = this.#pictures.map(({ prepared }) => prepared);
    for (const { url } of this.#pictures) URL.revokeObjectURL(url);
    this.#pictures = [];
    this.list.replaceChildren();
    this.draft.value = "";
    this.note("");
    this.#grow();
    this.actions.send(text, pictures);
  }

  /** A line above the box that says what is wrong; the empty one removes it. */
  note(/** @type {string} */ text) {
    this.noteLine.textContent = text;
  }

  focus() {
    this.draft.focus();
  }

  /** While an answer is written, Stop stands where Send was. */
  setBusy(/** @type {boolean} */ busy) {
    const focused = document.activeElement;
    this.#busy = busy;
    this.sendButton.hidden = busy;
    this.stopButton.hidden = !busy;
    // A hidden button loses the focus; it goes to what took its place.
    if (busy && focused === this.sendButton) this.stopButton.focus();
    if (!busy && (focused === this.stopButton || focused === document.body)) this.draft.focus();
  }

  async add(/** @type {File[]} */ files) {
    this.note("");
    const room = MOST_PICTURES - this.#pictures.length - this.#pending;
    const notes = files.length > room ? [`At most ${MOST_PICTURES} pictures at once.`] : [];
    for (const file of files.slice(0, Math.max(0, room))) {
      const row = make("li", { class: "attached-picture pending" }, make("span", { class: "hidden" }, `Preparing ${file.name}`));
      this.list.append(row);
      this.#pending += 1;
      this.#changed();
      try {
        this.#attach(await prepare(file), row);
      } catch (error) {
        row.remove();
        notes.push(error instanceof PictureError ? error.message : `“${file.name}” could not be prepared: ${/** @type {Error} */ (error).message}`);
      }
      this.#pending -= 1;
      this.#changed();
    }
    this.note(notes.join(" "));
    this.focus();
  }

  #attach(/** @type {Prepared} */ prepared, /** @type {HTMLElement} */ row) {
    const url = URL.createObjectURL(prepared.blob);
    const picture = { prepared, url, row };
    const remove = iconButton("close", `Remove ${prepared.name}`, () => {
      URL.revokeObjectURL(url);
      this.#pictures = this.#pictures.filter((other) => other !== picture);
      row.remove();
      this.#changed();
      this.focus();
    });
    row.classList.remove("pending");
    row.replaceChildren(make("img", { src: url, alt: prepared.name }), remove);
    this.#pictures.push(picture);
    this.actions.say(`${prepared.name} is added, ${plural(prepared.width, "pixel")} by ${prepared.height}.`);
    this.#changed();
  }
}
