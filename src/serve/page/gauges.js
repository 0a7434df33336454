// Shows how full the context is, and how much memory the server takes of what it planned.

import { byId, make } from "./dom.js";
import { count, size } from "./format.js";

/**
 * @param {string} name
 * @param {number} value
 * @param {number} limit
 * @param {string} text
 * @param {string} title
 */
function gauge(name, value, limit, text, title) {
  const share = limit > 0 ? Math.min(1, value / limit) : 0;
  const fill = make("span", { class: `fill ${share > 0.9 ? "full" : ""}` });
  // A style set by script is allowed where one in markup is not.
  fill.style.width = `${(share * 100).toFixed(1)}%`;
  return make(
    "div",
    { class: "gauge", title },
    make("span", { class: "gauge-name" }, name),
    make(
      "span",
      { class: "track", role: "meter", "aria-label": title, "aria-valuemin": 0, "aria-valuemax": limit, "aria-valuenow": Math.min(value, limit), "aria-valuetext": text },
      fill,
    ),
    make("span", { class: "gauge-text" }, text),
  );
}

/** One unit is enough where both have the same. */
function share(/** @type {number} */ part, /** @type {number} */ whole) {
  const [number, unit] = size(part).split(" ");
  return `${size(whole).endsWith(unit) ? number : size(part)} of ${size(whole)}`;
}

/**
 * @param {import("./api.js").Info | null} info
 * @param {number | null} used tokens of the open chat
 */
export function showGauges(info, used) {
  const box = byId("gauges");
  box.hidden = !info;
  if (!info) return;
  const memory = info.resident_bytes ?? null;
  box.replaceChildren(
    gauge("Context", used ?? 0, info.context, `${count(used ?? 0)} of ${count(info.context)}`, "How much of what the model can hold this chat takes, in tokens"),
    memory === null
      ? make("div", { class: "gauge" }, make("span", { class: "gauge-name" }, "Memory"), make("span", { class: "gauge-text" }, `planned ${size(info.planned_peak_bytes)}`))
      : gauge("Memory", memory, info.planned_peak_bytes, share(memory, info.planned_peak_bytes), "Memory the server takes now, of the most that it planned"),
  );
}
