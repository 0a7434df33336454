// Reads a stream of server-sent events: `data:` events, and progress in comments, which other clients skip.

/**
 * @typedef {object} Progress
 * @property {"queued" | "describing" | "described" | "encoding" | "prefill" | "waiting"} phase
 * @property {number} [position] place in the queue
 * @property {number} [picture] counted from 1
 * @property {number} [pictures]
 * @property {string} [text] what the describing model wrote
 * @property {boolean} [cached]
 * @property {number} [done] tokens of the prompt that are read
 * @property {number} [total]
 */

/** @typedef {{kind: "data", text: string} | {kind: "progress", progress: Progress}} ServerEvent */

const COMMENT = ": dwindle ";

/** Splits text that arrives in pieces into events. */
export class EventParser {
  #rest = "";
  /** @type {string[]} */
  #data = [];

  /**
   * Returns the events that this piece completes.
   * @param {string} piece
   * @returns {ServerEvent[]}
   */
  push(piece) {
    const lines = (this.#rest + piece).split("\n");
    this.#rest = lines.pop() ?? "";
    /** @type {ServerEvent[]} */
    const events = [];
    for (const ended of lines) {
      const line = ended.endsWith("\r") ? ended.slice(0, -1) : ended;
      if (line === "") {
        if (this.#data.length > 0) events.push({ kind: "data", text: this.#data.join("\n") });
        this.#data = [];
      } else if (line.startsWith("data:")) {
        this.#data.push(line.slice(line[5] === " " ? 6 : 5));
      } else if (line.startsWith(COMMENT)) {
        const progress = parsed(line.slice(COMMENT.length));
        if (typeof progress?.phase === "string") events.push({ kind: "progress", progress });
      }
    }
    return events;
  }
}

/** @param {string} text */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    // Progress is a courtesy; an answer does not fail for it.
    return null;
  }
}

/**
 * @param {ReadableStream<Uint8Array>} stream
 * @returns {AsyncGenerator<ServerEvent>}
 */
export async function* readEvents(stream) {
  const reader = stream.getReader();
  const decoder = new TextDecoder();
  const parser = new EventParser();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield* parser.push(decoder.decode(value, { stream: true }));
    }
  } finally {
    // Also when the caller stops early: the server sees the connection close and stops its work.
    reader.cancel().catch(() => {});
  }
}
