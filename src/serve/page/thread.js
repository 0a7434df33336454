// The list of messages: draws a chat, adds to it, and keeps its end in view while somebody reads there.

import { byId, make } from "./dom.js";
import { AnswerView, UserView } from "./message.js";
import { newDescriptions } from "./conversation.js";

/** @typedef {import("./conversation.js").Chat} Chat */
/** @typedef {import("./conversation.js").Message} Message */

/** Who is this close to the end reads the newest words. */
const NEAR = 80;

export class Thread {
  /** @param {import("./message.js").MessageActions} actions */
  constructor(actions) {
    this.actions = actions;
    this.list = byId("thread");
    this.scroller = byId("scroller");
    this.toEnd = byId("to-end");
    this.following = true;
    /** @type {AnswerView | null} */
    this.last = null;
    this.scroller.addEventListener("scroll", () => this.#noticeScroll(), { passive: true });
    this.toEnd.addEventListener("click", () => this.follow());
    // Pictures and formulas change heights after they are drawn.
    new ResizeObserver(() => this.keepUp()).observe(this.list);
  }

  #noticeScroll() {
    const { scrollHeight, scrollTop, clientHeight } = this.scroller;
    this.following = scrollHeight - scrollTop - clientHeight < NEAR;
    this.toEnd.hidden = this.following;
  }

  /** Goes to the end and stays there. */
  follow() {
    this.following = true;
    this.keepUp();
  }

  /** Stays at the end, where the reader was there. */
  keepUp() {
    if (this.following) this.scroller.scrollTop = this.scroller.scrollHeight;
    this.toEnd.hidden = this.following;
  }

  /** @param {Chat} chat */
  show(chat) {
    this.list.replaceChildren();
    this.last = null;
    chat.messages.forEach((message, index) => {
      if (index === chat.skipped && index > 0) this.list.append(make("li", { class: "divider" }, "The model no longer sees the messages above."));
      if (message.role === "user") {
        this.list.append(new UserView(message, this.actions).element);
        return;
      }
      const view = new AnswerView(message, this.actions);
      view.describe(newDescriptions(chat, message), false);
      view.text();
      view.finish(index === chat.messages.length - 1);
      this.list.append(view.element);
      this.last = view;
    });
    byId("welcome").hidden = chat.messages.length > 0;
    this.follow();
  }

  /**
   * Adds a message of the user; the answer before it can no longer be made anew.
   * @param {Message} message
   */
  addUser(message) {
    this.last?.finish(false);
    this.list.append(new UserView(message, this.actions).element);
    byId("welcome").hidden = true;
    this.follow();
  }

  /**
   * Adds an answer that is being written.
   * @param {Message} message
   */
  addAnswer(message) {
    const view = new AnswerView(message, this.actions);
    this.list.append(view.element);
    this.last = view;
    this.follow();
    return view;
  }
}
