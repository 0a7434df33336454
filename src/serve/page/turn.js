// One answer, from the request to its last word: changes the message, draws it, and says it.

import { answer, ApiError } from "./api.js";
import { newDescriptions } from "./conversation.js";
import { progressText } from "./message.js";

/** Redrawing more often than this costs a phone's battery, and nobody reads that fast. */
const DRAW_EVERY_MS = 70;
const SAVE_EVERY_MS = 2000;

/**
 * @param {object} turn
 * @param {import("./conversation.js").Chat} turn.chat
 * @param {import("./conversation.js").Message} turn.message the answer, without words yet
 * @param {import("./message.js").AnswerView} turn.view
 * @param {() => Promise<object>} turn.body
 * @param {AbortSignal} turn.signal
 * @param {import("./announcer.js").Announcer} turn.announcer
 * @param {() => void} turn.drawn
 * @param {() => Promise<void>} turn.save
 */
export async function takeTurn({ chat, message, view, body, signal, announcer, drawn, save }) {
  const begun = performance.now();
  let lastSave = begun;
  let waitingToDraw = false;
  /** @type {import("./events.js").Progress | null} */
  let progress = null;
  let saidPhase = "";

  const showProgress = () => {
    if (message.text !== "" || message.state !== "writing") return;
    view.showProgress(progress, performance.now() - begun);
    drawn();
  };
  const draw = () => {
    waitingToDraw = false;
    if (message.state !== "writing") return;
    view.hideProgress();
    view.text();
    drawn();
  };
  // Not by animation frames, which rest while the page is not visible.
  const drawSoon = () => {
    if (waitingToDraw) return;
    waitingToDraw = true;
    setTimeout(draw, DRAW_EVERY_MS);
  };

  showProgress();
  const clock = setInterval(showProgress, 1000);
  try {
    for await (const event of answer(await body(), signal)) {
      if (event.kind === "progress") {
        // A heartbeat says nothing new.
        if (event.progress.phase !== "waiting") progress = event.progress;
        if (event.progress.phase === "described" && typeof event.progress.text === "string") {
          message.descriptions = [...(message.descriptions ?? []), event.progress.text];
          const fresh = newDescriptions(chat, message);
          if (fresh.includes(event.progress.text)) announcer.say(`The describing model saw: ${event.progress.text}`);
          view.describe(fresh, true);
        }
        // Numbers of a prompt's tokens are not for listening.
        const phase = `${progress?.phase} ${progress?.picture ?? ""}`;
        if (phase !== saidPhase && progress && ["queued", "describing", "encoding"].includes(progress.phase)) announcer.say(progressText(progress));
        saidPhase = phase;
        showProgress();
      } else if (event.kind === "text") {
        message.text += event.text;
        announcer.feed(event.text);
        drawSoon();
        if (performance.now() - lastSave > SAVE_EVERY_MS) {
          lastSave = performance.now();
          await save();
        }
      } else if (event.kind === "end") {
        message.finish = event.finish;
        message.forgotten = event.forgotten;
        message.timings = event.timings;
        if (event.descriptions.length > 0) message.descriptions = event.descriptions;
      } else {
        message.usage = event.usage;
      }
    }
    message.state = "done";
  } catch (error) {
    if (signal.aborted) {
      message.state = "stopped";
    } else {
      message.state = "failed";
      const failure = error instanceof ApiError ? error : new ApiError("other", `The page could not read the answer: ${/** @type {Error} */ (error).message}`);
      message.failure = { kind: failure.kind, message: failure.message, details: failure.details };
    }
  } finally {
    clearInterval(clock);
  }
  view.hideProgress();
  view.describe(newDescriptions(chat, message), true);
  view.text();
  view.finish(true);
  drawn();
  announcer.finish();
}
