// Settings: instructions for the model, sampling, appearance, reading aloud, and the key of a protected server.

import { make } from "./dom.js";
import { openDialog } from "./dialog.js";
import { count, size } from "./format.js";

/**
 * @typedef {object} Settings
 * @property {Record<string, number>} sampling only what was changed
 * @property {string} instructions for new chats
 * @property {boolean} readAloud
 * @property {string} apiKey
 */

/** @type {Settings} */
export const DEFAULTS = { sampling: {}, instructions: "", readAloud: true, apiKey: "" };

/** Fields of a request, with the limits that the server accepts. */
const SAMPLING = [
  { name: "temperature", label: "Temperature", hint: "0 always takes the likeliest word; more is livelier.", min: 0, max: 2, step: 0.05 },
  { name: "top_p", label: "Top-p", hint: "Keeps the likeliest words up to this share.", min: 0, max: 1, step: 0.01 },
  { name: "top_k", label: "Top-k", hint: "Keeps this many words; 0 keeps all.", min: 0, max: 1000, step: 1 },
  { name: "min_p", label: "Min-p", hint: "Drops words less likely than this share of the best.", min: 0, max: 1, step: 0.01 },
  { name: "repetition_penalty", label: "Repetition penalty", hint: "Above 1 avoids words that were used.", min: 0.5, max: 2, step: 0.01 },
  { name: "max_tokens", label: "Longest answer", hint: "In tokens; empty means as long as it needs.", min: 1, max: 1_000_000, step: 1 },
  { name: "seed", label: "Seed", hint: "The same number gives the same answer again.", min: 0, max: 4_294_967_295, step: 1 },
];

/**
 * @param {object} page
 * @param {Settings} page.settings
 * @param {import("./api.js").Info | null} page.info
 * @param {string} page.system instructions of the open chat
 * @param {(settings: Settings) => void} page.save
 * @param {(system: string) => void} page.saveSystem
 */
export function openSettings({ settings, info, system, save, saveSystem }) {
  const dialog = openDialog(
    "Settings",
    [
      instructions(settings, system, save, saveSystem),
      appearance(),
      reading(settings, save),
      sampling(settings, info, save),
      key(settings, save),
      info ? about(info) : null,
    ],
    "settings",
  );
  return dialog;
}

/** @param {string} heading @param {...Node} content */
function section(heading, ...content) {
  return make("section", { class: "setting-group" }, make("h3", {}, heading), ...content);
}

/**
 * @param {Settings} settings
 * @param {string} system
 * @param {(settings: Settings) => void} save
 * @param {(system: string) => void} saveSystem
 */
function instructions(settings, system, save, saveSystem) {
  const area = make("textarea", { id: "setting-system", rows: 3, placeholder: "For example: Answer in German, in short sentences." });
  area.value = system;
  const always = make("input", { type: "checkbox", id: "setting-always" });
  always.checked = settings.instructions !== "" && settings.instructions === system;
  const changed = () => {
    saveSystem(area.value);
    if (always.checked) settings.instructions = area.value;
    save(settings);
  };
  area.addEventListener("change", changed);
  always.addEventListener("change", () => {
    settings.instructions = always.checked ? area.value : "";
    save(settings);
  });
  return section(
    "Instructions",
    make("label", { for: "setting-system", class: "quiet" }, "What the model should keep in mind in this chat (its system prompt)"),
    area,
    make("div", { class: "check" }, always, make("label", { for: "setting-always" }, "Also in new chats")),
  );
}

/**
 * @param {Settings} settings
 * @param {import("./api.js").Info | null} info
 * @param {(settings: Settings) => void} save
 */
function sampling(settings, info, save) {
  const grid = make("div", { class: "setting-grid" });
  /** @type {HTMLInputElement[]} */
  const inputs = [];
  for (const { name, label, hint, min, max, step } of SAMPLING) {
    const normal = info?.sampling?.[name];
    const input = make("input", {
      type: "number", inputmode: step < 1 ? "decimal" : "numeric", id: `setting-${name}`, min, max, step: step < 1 ? "any" : 1,
      placeholder: normal === undefined || normal === null ? "" : normal, "aria-describedby": `hint-${name}`,
    });
    if (settings.sampling[name] !== undefined) input.value = String(settings.sampling[name]);
    const line = make("p", { class: "quiet", id: `hint-${name}` }, hint);
    input.addEventListener("change", () => {
      const valid = input.validity.valid;
      input.setAttribute("aria-invalid", String(!valid));
      line.classList.toggle("wrong", !valid);
      line.textContent = valid ? hint : `A ${step < 1 ? "number" : "whole number"} from ${count(min)} to ${count(max)}, please.`;
      if (!valid) return;
      if (input.value === "") delete settings.sampling[name];
      else settings.sampling[name] = Number(input.value);
      save(settings);
    });
    inputs.push(input);
    grid.append(make("div", { class: "setting" }, make("label", { for: `setting-${name}` }, label), input, line));
  }
  const reset = make("button", { type: "button", class: "button", onclick: () => {
    for (const input of inputs) {
      input.value = "";
      input.dispatchEvent(new Event("change"));
    }
  } }, "Back to the model’s own values");
  const note = make("p", { class: "quiet" }, "Empty fields use the model’s own values, shown in grey.");
  return make("section", { class: "setting-group" }, make("details", { class: "setting-more" }, make("summary", {}, "How answers are chosen (sampling)"), note, grid, reset));
}

function appearance() {
  const select = make("select", { id: "setting-theme" });
  for (const [value, text] of [["", "As the system"], ["light", "Light"], ["dark", "Dark"]]) select.append(make("option", { value }, text));
  select.value = document.documentElement.dataset.theme ?? "";
  select.addEventListener("change", () => {
    if (select.value) document.documentElement.dataset.theme = select.value;
    else delete document.documentElement.dataset.theme;
    try {
      localStorage.setItem("theme", select.value);
    } catch {
      // It holds for this visit, then.
    }
  });
  return section("Appearance", make("div", { class: "setting" }, make("label", { for: "setting-theme" }, "Colours"), select));
}

/** @param {Settings} settings @param {(settings: Settings) => void} save */
function reading(settings, save) {
  const check = make("input", { type: "checkbox", id: "setting-read" });
  check.checked = settings.readAloud;
  check.addEventListener("change", () => {
    settings.readAloud = check.checked;
    save(settings);
  });
  return section("Screen readers", make("div", { class: "check" }, check, make("label", { for: "setting-read" }, "Announce answers sentence by sentence while they are written")));
}

/** @param {Settings} settings @param {(settings: Settings) => void} save */
function key(settings, save) {
  const input = make("input", { type: "password", id: "setting-key", autocomplete: "off" });
  input.value = settings.apiKey;
  input.addEventListener("change", () => {
    settings.apiKey = input.value.trim();
    save(settings);
  });
  return section("API key", make("div", { class: "setting" }, make("label", { for: "setting-key" }, "Only for a server that was started with --api-key"), input));
}

/** @param {import("./api.js").Info} info */
function about(info) {
  const rows = [
    ["Model", info.model],
    ["Looks at pictures", info.sees ? (info.describer ?? "The model itself") : "No"],
    ["Context", `${count(info.context)} tokens`],
    ["Runs on", info.device],
    ["Planned memory", size(info.planned_peak_bytes)],
    ["Dwindle", info.version],
  ];
  return section("This server", make("dl", { class: "facts" }, ...rows.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)])));
}
