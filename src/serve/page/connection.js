// Watches the server: fetches what it says about itself, and shows a line while it does not answer.

import { ApiError, fetchInfo } from "./api.js";
import { byId } from "./dom.js";

const CALM_MS = 10_000;
const WORRIED_MS = 3_000;

const LINES = {
  gone: "The computer that runs the model does not answer. Is Dwindle still running there? This page tries again by itself.",
  loading: "The model is being loaded. This takes a moment.",
  unpaired: "This device is not paired with the server. Scan the code shown on the computer that runs Dwindle, or enter an API key in the settings.",
};

export class Connection {
  /** @type {number | undefined} */
  #timer;
  #wasDown = false;

  /**
   * @param {(info: import("./api.js").Info) => void} update
   * @param {(sentence: string) => void} say
   */
  constructor(update, say) {
    this.update = update;
    this.say = say;
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) void this.look();
    });
  }

  /** Asks the server now, and again after a while. */
  async look() {
    clearTimeout(this.#timer);
    let wait = CALM_MS;
    try {
      const info = await fetchInfo();
      byId("banner").textContent = "";
      this.update(info);
      if (this.#wasDown) this.say("The server answers again.");
      this.#wasDown = false;
    } catch (error) {
      this.show(error);
      wait = WORRIED_MS;
    }
    // A page that nobody looks at asks nothing.
    if (!document.hidden) this.#timer = setTimeout(() => void this.look(), wait);
  }

  show(/** @type {any} */ error) {
    const kind = error instanceof ApiError ? error.kind : "other";
    this.#wasDown = true;
    const line = LINES[/** @type {keyof typeof LINES} */ (kind)] ?? error.message;
    const banner = byId("banner");
    // Setting the same text again would be announced again.
    if (banner.textContent !== line) banner.textContent = line;
  }
}
