// Draws one message: pictures and words of the user, or an answer with what the describing model saw and its figures.

import { icon, iconButton, make } from "./dom.js";
import { copyFrom } from "./copy.js";
import { showPicture } from "./dialog.js";
import { count, duration, plural, rate } from "./format.js";
import { MarkdownView } from "./markdown.js";

/** @typedef {import("./conversation.js").Message} Message */
/** @typedef {import("./events.js").Progress} Progress */

/**
 * What messages need of the page.
 * @typedef {object} MessageActions
 * @property {(sentence: string) => void} say
 * @property {(id: string) => Promise<{url: string, name: string} | null>} pictureUrl
 * @property {() => void} regenerate
 * @property {(message: Message, text: string) => void} resend
 * @property {() => void} startNew
 * @property {() => void} shortenAndRetry
 * @property {() => string} describer the describing model's name
 */

export class UserView {
  /**
   * @param {Message} message
   * @param {MessageActions} actions
   */
  constructor(message, actions) {
    this.message = message;
    this.actions = actions;
    this.element = make("li", { class: "message user", "data-id": message.id });
    this.#draw();
  }

  #draw() {
    const { message, actions } = this;
    const pictures = make("div", { class: "pictures" });
    message.pictures.forEach(async (id, index) => {
      const button = make("button", { type: "button", class: "picture" });
      pictures.append(button);
      const picture = await actions.pictureUrl(id);
      if (!picture) {
        button.replaceWith(make("p", { class: "quiet" }, "This picture is no longer in the browser’s storage."));
        return;
      }
      const name = message.pictures.length > 1 ? `Picture ${index + 1}: ${picture.name}` : `Picture: ${picture.name}`;
      button.append(make("img", { src: picture.url, alt: name }));
      button.addEventListener("click", () => showPicture(picture.url, picture.name, name));
    });
    const edit = iconButton("edit", "Edit and send again", () => this.#edit());
    /** @type {HTMLButtonElement} */
    const copy = iconButton("copy", "Copy message", () => copyFrom(copy, message.text, actions.say));
    this.element.replaceChildren(
      make("h2", { class: "hidden" }, "You wrote"),
      message.pictures.length > 0 ? pictures : "",
      message.text ? make("p", { class: "bubble" }, message.text) : "",
      make("div", { class: "actions" }, message.text ? copy : "", edit),
    );
  }

  #edit() {
    const { message, actions } = this;
    const area = make("textarea", { class: "edit", rows: 3, "aria-label": "Edit your message" });
    area.value = message.text;
    const cancel = () => {
      this.#draw();
      /** @type {HTMLElement | null} */ (this.element.querySelector(".actions button:last-child"))?.focus();
    };
    const send = () => {
      if (area.value.trim() === "" && message.pictures.length === 0) return;
      actions.resend(message, area.value.trim());
    };
    area.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        event.stopPropagation();
        cancel();
      } else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) send();
    });
    const form = make(
      "form",
      { class: "edit-form" },
      area,
      make("p", { class: "quiet" }, "The answers after this message are replaced."),
      make(
        "div",
        { class: "edit-actions" },
        make("button", { type: "button", class: "button", onclick: cancel }, "Cancel"),
        make("button", { type: "submit", class: "button primary" }, "Send again"),
      ),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      send();
    });
    this.element.querySelector(".bubble")?.remove();
    this.element.querySelector(".actions")?.replaceWith(form);
    area.focus();
  }
}

/** What happens before the first word, as a sentence. */
export function progressText(/** @type {Progress | null} */ progress) {
  const which = progress?.pictures && progress.pictures > 1 ? `picture ${progress.picture} of ${progress.pictures}` : "the picture";
  switch (progress?.phase) {
    case "queued":
      return progress.position && progress.position > 0
        ? `Waiting. ${plural(progress.position, "other conversation is", "other conversations are")} before this one.`
        : "Waiting for another conversation to finish.";
    case "describing":
    case "encoding":
      return `Looking at ${which}…`;
    case "described":
      return `Looked at ${which}.`;
    case "prefill":
      return progress.total ? `Reading ${count(progress.done ?? 0)} of ${plural(progress.total, "token")}…` : "Reading…";
    default:
      return "Thinking…";
  }
}

export class AnswerView {
  /**
   * @param {Message} message
   * @param {MessageActions} actions
   */
  constructor(message, actions) {
    this.actions = actions;
    this.message = message;
    this.heading = make("h2", { class: "hidden" }, "Answer");
    this.seen = make("div", { class: "seen-list" });
    this.status = make("div", { class: "progress" });
    this.words = make("div", { class: "words" });
    this.markdown = new MarkdownView(this.words, actions.say);
    this.after = make("div", { class: "after" });
    this.element = make("li", { class: "message answer", "data-id": message.id }, this.heading, this.seen, this.status, this.words, this.after);
    /** @type {string[]} */
    this.shown = [];
  }

  /**
   * @param {string[]} descriptions that no earlier answer shows
   * @param {boolean} open
   */
  describe(descriptions, open) {
    if (descriptions.length === this.shown.length && descriptions.every((text, index) => text === this.shown[index])) return;
    this.shown = descriptions;
    const describer = this.actions.describer();
    this.seen.replaceChildren(
      ...descriptions.map((text, index) =>
        make(
          "details",
          { class: "seen", open },
          make(
            "summary",
            {},
            icon("eye"),
            make("span", {}, descriptions.length > 1 ? `What the describing model saw in picture ${index + 1}` : "What the describing model saw"),
          ),
          make("p", {}, text),
          describer ? make("p", { class: "quiet" }, describer) : null,
        ),
      ),
    );
  }

  /**
   * @param {Progress | null} progress null once words arrive
   * @param {number} elapsed in milliseconds
   */
  showProgress(progress, elapsed) {
    const line = make("p", {}, make("span", { class: "dots", "aria-hidden": "true" }), progressText(progress));
    if (elapsed >= 3000) line.append(make("span", { class: "quiet" }, ` ${duration(Math.floor(elapsed / 1000) * 1000)}`));
    const parts = /** @type {HTMLElement[]} */ ([line]);
    if (progress?.phase === "prefill" && progress.total) {
      parts.push(make("progress", { max: progress.total, value: progress.done ?? 0, "aria-label": "Prompt read" }));
    }
    this.status.replaceChildren(...parts);
  }

  hideProgress() {
    this.status.replaceChildren();
  }

  text() {
    this.markdown.update(this.message.text);
  }

  /** What stands below a finished answer; `last` ones can be made anew. */
  finish(/** @type {boolean} */ last) {
    const { message, actions } = this;
    this.hideProgress();
    const parts = /** @type {Node[]} */ ([]);
    if (message.state === "stopped") parts.push(make("p", { class: "note" }, message.text ? "Stopped here." : "Stopped before the first word."));
    if (message.finish === "length") parts.push(make("p", { class: "note" }, "The answer reached its longest length."));
    if (message.forgotten) parts.push(make("p", { class: "note" }, `The oldest ${plural(message.forgotten, "turn")} no longer fit and ${message.forgotten === 1 ? "was" : "were"} left out.`));
    if (message.failure) parts.push(this.#failure(message.failure, last));
    const buttons = make("div", { class: "actions" });
    if (message.text) {
      /** @type {HTMLButtonElement} */
      const copy = iconButton("copy", "Copy answer", () => copyFrom(copy, message.text, actions.say));
      buttons.append(copy);
    }
    if (last && !message.failure) buttons.append(iconButton("again", "Answer again", () => actions.regenerate()));
    const figures = this.figures();
    if (figures) buttons.append(make("span", { class: "figures" }, figures));
    if (buttons.children.length > 0) parts.push(buttons);
    this.after.replaceChildren(...parts);
  }

  /** @param {NonNullable<Message["failure"]>} failure @param {boolean} last */
  #failure(failure, last) {
    const { actions } = this;
    const retry = make("button", { type: "button", class: "button primary", onclick: () => actions.regenerate() }, "Try again");
    const fresh = make("button", { type: "button", class: "button", onclick: () => actions.startNew() }, "New chat");
    const shorter = make("button", { type: "button", class: "button primary", onclick: () => actions.shortenAndRetry() }, "Shorten this chat");
    const { title, text, buttons } = explained(failure);
    const offered = { retry: [retry], long: [shorter, fresh], none: [] }[buttons];
    return make(
      "div",
      { class: "failure", role: "group", "aria-label": title },
      make("p", { class: "failure-title" }, title),
      make("p", {}, text),
      last && offered.length > 0 ? make("div", { class: "failure-actions" }, ...offered) : null,
    );
  }

  /** Speed and size of the answer in one line. */
  figures() {
    const { timings, usage } = this.message;
    const parts = [];
    if (timings?.predicted_per_second) parts.push(`${rate(timings.predicted_per_second)} tokens/s`);
    const written = timings?.predicted_n ?? usage?.completion_tokens;
    if (written) parts.push(plural(written, "token"));
    const looked = (timings?.describe_ms ?? 0) + (timings?.encode_ms ?? 0);
    if (looked > 0) parts.push(`looked ${duration(looked)}`);
    if (timings?.prompt_ms) parts.push(`read ${duration(timings.prompt_ms)}`);
    return parts.join(" · ");
  }
}

/**
 * A failure in words for people who did not build this.
 * @param {NonNullable<Message["failure"]>} failure
 * @returns {{title: string, text: string, buttons: "retry" | "long" | "none"}}
 */
export function explained(failure) {
  const { promptTokens, context, retryAfter } = failure.details ?? {};
  switch (failure.kind) {
    case "context": {
      const numbers = promptTokens && context ? ` It has ${count(promptTokens)} tokens, and the model can hold ${count(context)}.` : "";
      return {
        title: "This chat is too long for the model.",
        text: `${numbers.trim()} Start a new chat, or shorten this one: its oldest messages stay here, but the model no longer sees them.`.trim(),
        buttons: "long",
      };
    }
    case "large":
      return {
        title: "This chat has too many pictures.",
        text: "All of its pictures are sent with each message, and together they are too large. Start a new chat, or shorten this one.",
        buttons: "long",
      };
    case "busy":
      return {
        title: "The model is busy with other conversations.",
        text: retryAfter ? `The queue is full. Try again in ${plural(retryAfter, "second")}.` : "The queue is full. Try again in a moment.",
        buttons: "retry",
      };
    case "loading":
      return { title: "The model is still being loaded.", text: "Try again in a moment.", buttons: "retry" };
    case "gone":
      return { title: failure.message, text: "Is Dwindle still running there, and is this device in the same network? What was said so far is kept.", buttons: "retry" };
    case "unpaired":
      return { title: "This device is not paired any more.", text: "Scan the code shown on the computer that runs Dwindle, or enter an API key in the settings.", buttons: "retry" };
    default:
      return { title: "The answer failed.", text: failure.message, buttons: "retry" };
  }
}
