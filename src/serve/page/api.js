// Speaks with the server, and gives every failure a kind that the page can act on.

import { readEvents } from "./events.js";

/**
 * @typedef {object} Info
 * @property {string} version
 * @property {string} model
 * @property {string[]} models
 * @property {boolean} sees
 * @property {boolean} ensemble
 * @property {string | null} describer
 * @property {number} context
 * @property {string} device
 * @property {number} planned_peak_bytes
 * @property {number | null} resident_bytes
 * @property {boolean} busy
 * @property {Record<string, number>} sampling
 * @property {{on: boolean, url: string | null}} lan
 * @property {boolean} local
 * @property {string} [host] the name of the computer
 */

/**
 * @typedef {object} Timings
 * @property {number} [prompt_n]
 * @property {number} [cache_n]
 * @property {number} [prompt_ms]
 * @property {number} [predicted_n]
 * @property {number} [predicted_per_second]
 * @property {number} [describe_ms]
 * @property {number} [encode_ms]
 */

/** @typedef {{prompt_tokens: number, completion_tokens: number}} Usage */

/**
 * @typedef {{kind: "progress", progress: import("./events.js").Progress}
 *   | {kind: "text", text: string}
 *   | {kind: "end", finish: string, descriptions: string[], forgotten: number, timings: Timings | null}
 *   | {kind: "usage", usage: Usage}} AnswerEvent
 */

/**
 * What went wrong: `gone` (no connection), `unpaired`, `busy` (queue full), `loading`, `context` (the chat is too
 * long), `large` (the request is too large), `other`.
 * @typedef {"gone" | "unpaired" | "busy" | "loading" | "context" | "large" | "other"} FailureKind
 */

/** A failure with its kind, and what the server said about it. */
export class ApiError extends Error {
  /**
   * @param {FailureKind} kind
   * @param {string} message
   * @param {{retryAfter?: number | null, promptTokens?: number, context?: number}} [details]
   */
  constructor(kind, message, details = {}) {
    super(message);
    this.kind = kind;
    this.details = details;
  }
}

let apiKey = "";

/** Sends this key with every request; the empty one sends none. */
export function setApiKey(/** @type {string} */ key) {
  apiKey = key;
}

/**
 * @param {string} path
 * @param {RequestInit} [options]
 */
async function request(path, options = {}) {
  const headers = new Headers(options.headers);
  if (apiKey) headers.set("Authorization", `Bearer ${apiKey}`);
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store" });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new ApiError("gone", "The computer that runs the model does not answer.");
  }
  if (!response.ok) throw await failure(response);
  return response;
}

/** @param {Response} response */
async function failure(response) {
  let error = null;
  try {
    error = (await response.json()).error;
  } catch {
    // A proxy or an old server may answer with something else.
  }
  const message = typeof error?.message === "string" ? error.message : `The server answered ${response.status}.`;
  return fromServer(response.status, error, message, Number(response.headers.get("Retry-After")) || null);
}

/**
 * @param {number} status
 * @param {any} error OpenAI's error object
 * @param {string} message
 * @param {number | null} retryAfter
 */
function fromServer(status, error, message, retryAfter) {
  if (error?.code === "context_length_exceeded") {
    const { prompt_tokens: promptTokens, context } = error.dwindle ?? {};
    return new ApiError("context", message, { promptTokens, context });
  }
  if (status === 401) return new ApiError("unpaired", message);
  if (status === 413) return new ApiError("large", message);
  if (status === 503) {
    const loading = /load/i.test(`${error?.code} ${message}`);
    return new ApiError(loading ? "loading" : "busy", message, { retryAfter });
  }
  return new ApiError("other", message);
}

/** @returns {Promise<Info>} */
export async function fetchInfo() {
  return (await request("/dwindle/info")).json();
}

/** @typedef {{id: string, name: string, paired_at: any, last_seen: any, current: boolean}} Device */

/** @returns {Promise<{devices: Device[], url: string | null, qr_svg: string | null}>} */
export async function fetchDevices() {
  return (await request("/dwindle/devices")).json();
}

export async function revokeDevice(/** @type {string} */ id) {
  await request(`/dwindle/devices/${encodeURIComponent(id)}`, { method: "DELETE" });
}

/**
 * Asks for an answer and yields it as it arrives. Ends with `end`, or throws.
 * @param {object} body
 * @param {AbortSignal} signal
 * @returns {AsyncGenerator<AnswerEvent>}
 */
export async function* answer(body, signal) {
  const response = await request("/v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
  if (!response.body) throw new ApiError("other", "The server sent an answer without a body.");
  let ended = false;
  try {
    for await (const event of readEvents(response.body)) {
      if (event.kind === "progress") {
        yield event;
        continue;
      }
      if (event.text === "[DONE]") break;
      const chunk = JSON.parse(event.text);
      if (chunk.error) throw fromServer(chunk.error.code === 503 ? 503 : 0, chunk.error, chunk.error.message ?? "The answer failed.", null);
      const choice = chunk.choices?.[0];
      if (choice?.delta?.content) yield { kind: "text", text: choice.delta.content };
      if (choice?.finish_reason) {
        ended = true;
        yield {
          kind: "end",
          finish: choice.finish_reason,
          descriptions: chunk.dwindle?.descriptions ?? [],
          forgotten: chunk.dwindle?.forgotten_turns ?? 0,
          timings: chunk.timings ?? chunk.dwindle?.timings ?? null,
        };
      }
      if (chunk.usage) yield { kind: "usage", usage: chunk.usage };
    }
  } catch (error) {
    if (signal.aborted || error instanceof ApiError) throw error;
    throw new ApiError("gone", "The connection broke in the middle of the answer.");
  }
  if (!ended) throw new ApiError("gone", "The connection ended in the middle of the answer.");
}
