// Markdown to elements: parsed in blocks, sanitized, without anything that the browser would load.

import { Marked } from "./vendor/marked.esm.js";
import "./vendor/purify.min.js";
import { icon, make } from "./dom.js";
import { copyFrom } from "./copy.js";
import { mathExtensions, typeset } from "./math.js";

/** The library is published as a script, which defines a global. */
const purify = /** @type {any} */ (globalThis).DOMPurify;

/** Tags without attributes that models write into Markdown; other HTML is shown as text. */
const PLAIN_TAG = /^<\/?(?:br|sub|sup|b|i|u|s|em|strong|kbd|mark)\s*\/?>$/i;
const LINK = /^(?:https?|mailto):/i;

function escaped(/** @type {string} */ text) {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}

const marked = new Marked({
  gfm: true,
  breaks: false,
  renderer: {
    html({ text }) {
      return PLAIN_TAG.test(text.trim()) ? text : escaped(text);
    },
    /** A picture in an answer would be loaded from somewhere; it becomes a link. */
    image({ href, text }) {
      const label = `Picture: ${text || href}`;
      return LINK.test(href) ? `<a href="${escaped(href)}">${escaped(label)}</a>` : escaped(label);
    },
    link({ href, tokens }) {
      const text = this.parser.parseInline(tokens);
      return LINK.test(href) ? `<a href="${escaped(href)}">${text}</a>` : text;
    },
    /** The page's headings end at the second level. */
    heading({ depth, tokens }) {
      const level = Math.min(6, Math.max(3, depth + 1));
      return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>`;
    },
    checkbox({ checked }) {
      return checked ? "☑ " : "☐ ";
    },
  },
});
marked.use({ extensions: /** @type {any} */ (mathExtensions) });

const TEXT_RULES = {
  ALLOWED_TAGS: [
    ..."a b blockquote br code del div em h3 h4 h5 h6 hr i kbd li mark ol p pre s span strong sub sup".split(" "),
    ..."table tbody td th thead tr u ul".split(" "),
  ],
  ALLOWED_ATTR: ["href", "class", "start", "align"],
  ALLOWED_URI_REGEXP: LINK,
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};

/** The box around a formula is ours; sanitizing begins there. */
const MATH_RULES = { USE_PROFILES: { mathMl: true }, ADD_TAGS: ["div"], FORBID_ATTR: ["href", "xlink:href", "src"], ADD_ATTR: ["style"], IN_PLACE: true };

/** @returns {DocumentFragment} */
function sanitized(/** @type {string} */ html) {
  return purify.sanitize(html, TEXT_RULES);
}

function sanitizeMath(/** @type {Element} */ node) {
  purify.sanitize(node, MATH_RULES);
}

/**
 * One text, drawn as it grows: blocks that stay the same keep their elements, and with them a selection in them.
 */
export class MarkdownView {
  /** @type {string[]} */
  #sources = [];

  /**
   * @param {HTMLElement} element
   * @param {(sentence: string) => void} say
   */
  constructor(element, say) {
    this.element = element;
    this.say = say;
  }

  update(/** @type {string} */ text) {
    const tokens = marked.lexer(text);
    const blocks = tokens.filter((token) => token.type !== "space");
    const sources = blocks.map((token) => token.raw);
    let same = 0;
    while (same < sources.length && sources[same] === this.#sources[same]) same += 1;
    while (this.element.children.length > same) this.element.lastElementChild?.remove();
    for (const block of blocks.slice(same)) {
      const list = Object.assign([block], { links: tokens.links });
      const box = make("div", { class: "block" }, sanitized(marked.parser(list)));
      this.#finish(box);
      this.element.append(box);
    }
    this.#sources = sources;
    typeset(this.element, sanitizeMath);
  }

  #finish(/** @type {HTMLElement} */ box) {
    for (const link of box.querySelectorAll("a")) {
      link.target = "_blank";
      link.rel = "noopener noreferrer nofollow";
    }
    for (const pre of box.querySelectorAll("pre")) {
      const code = pre.querySelector("code");
      const language = /language-([\w+#.-]+)/.exec(code?.className ?? "")?.[1] ?? "";
      const frame = make("div", { class: "code" });
      const button = make("button", { type: "button", class: "copy", "aria-label": "Copy code" }, icon("copy"), make("span", {}, "Copy"));
      button.addEventListener("click", () => copyFrom(button, pre.textContent ?? "", this.say));
      pre.replaceWith(frame);
      // Focusable, so that the keyboard can scroll a wide one.
      pre.tabIndex = 0;
      pre.setAttribute("role", "group");
      pre.setAttribute("aria-label", language ? `Code, ${language}` : "Code");
      frame.append(make("div", { class: "code-head" }, make("span", {}, language || "text"), button), pre);
    }
    for (const table of box.querySelectorAll("table")) {
      const frame = make("div", { class: "table", tabindex: 0, role: "group", "aria-label": "Table" });
      table.replaceWith(frame);
      frame.append(table);
    }
  }
}
