// Tells screen readers what happens: whole sentences in a live region, never single characters.

const KEPT = 20;

/** Markdown's marks are not for listening. */
function spoken(/** @type {string} */ sentence) {
  return sentence
    .replace(/!?\[([^\]]*)\]\([^)]*\)/g, "$1")
    .replace(/^\s*(?:#{1,6}|>|[-*+])\s+/gm, "")
    .replace(/[*_`|]{1,3}/g, " ")
    .replace(/\s+/g, " ")
    .trim();
}

/** Where the last complete sentence ends; sentences end with a mark and white space, or with a line. */
function completeLength(/** @type {string} */ text) {
  let end = 0;
  for (const match of text.matchAll(/[.!?…。！？]["”’')\]*_]*(?=\s)|\n/g)) end = match.index + match[0].length;
  return end;
}

export class Announcer {
  #rest = "";
  #inCode = false;

  /** @param {HTMLElement} region with `aria-live` */
  constructor(region) {
    this.region = region;
    this.reading = true;
  }

  /** Says one thing. */
  say(/** @type {string} */ sentence) {
    if (sentence.trim() === "") return;
    const line = document.createElement("p");
    line.textContent = sentence;
    this.region.append(line);
    while (this.region.children.length > KEPT) this.region.firstElementChild?.remove();
  }

  /** Takes a piece of an answer, and says the sentences that it completes. */
  feed(/** @type {string} */ piece) {
    this.#rest += piece;
    const end = completeLength(this.#rest);
    if (end === 0) return;
    this.#read(this.#rest.slice(0, end));
    this.#rest = this.#rest.slice(end);
  }

  /** The answer is over: what is left is said. */
  finish() {
    this.#read(this.#rest);
    this.#rest = "";
    this.#inCode = false;
  }

  #read(/** @type {string} */ text) {
    if (!this.reading) return;
    let prose = "";
    for (const line of text.split("\n")) {
      if (/^\s*(```|~~~)/.test(line)) {
        this.#inCode = !this.#inCode;
        if (this.#inCode) prose += " A block of code. ";
      } else if (!this.#inCode) {
        prose += `${line}\n`;
      }
    }
    this.say(spoken(prose));
  }
}
