// The panel of phones and other devices: how to let one in, which are in, and how to put one out. Only on the computer itself.

import { fetchDevices, revokeDevice } from "./api.js";
import { icon, make } from "./dom.js";
import { confirmed, openDialog } from "./dialog.js";
import { copyFrom } from "./copy.js";
import { day } from "./format.js";

/**
 * @param {import("./api.js").Info} info
 * @param {(sentence: string) => void} say
 */
export function openDevices(info, say) {
  const body = make("div", { class: "devices" });
  openDialog("Phones and devices", [body], "devices-dialog");
  if (info.lan.on) void list(body, say);
  else {
    body.append(
      make("p", {}, "Dwindle can be used from a phone or another computer in your home. It is not open to them now."),
      make("p", {}, "Start it with this option to let them in:"),
      make("pre", { tabindex: 0, role: "group", "aria-label": "Command" }, make("code", {}, "dwindle serve --lan")),
    );
  }
}

/**
 * @param {HTMLElement} body
 * @param {(sentence: string) => void} say
 */
async function list(body, say) {
  let found;
  try {
    found = await fetchDevices();
  } catch (error) {
    body.replaceChildren(make("p", { class: "note" }, /** @type {Error} */ (error).message));
    return;
  }
  const { devices, url, qr_svg: code } = found;
  const parts = /** @type {Node[]} */ ([]);
  if (url) {
    parts.push(make("p", {}, "Scan this code with the camera of a phone in the same network, or open the address there."));
    if (code) {
      // As a picture: markup from outside never becomes part of the page.
      parts.push(make("img", { class: "qr", alt: "Code with the pairing address", src: `data:image/svg+xml;utf8,${encodeURIComponent(code)}` }));
    }
    const copy = make("button", { type: "button", class: "icon-button small", "aria-label": "Copy the address", title: "Copy the address" }, icon("copy"));
    copy.addEventListener("click", () => copyFrom(copy, url, say));
    parts.push(make("p", { class: "address" }, make("code", {}, url), copy));
    parts.push(make("p", { class: "quiet" }, "Whoever has this address can use the model. Show it only to people of your home."));
  }
  parts.push(make("h3", {}, "Paired devices"));
  if (devices.length === 0) parts.push(make("p", { class: "quiet" }, "None yet."));
  else {
    const rows = devices.map((device) => {
      const remove = async () => {
        if (!(await confirmed("Remove this device?", `“${deviceName(device.name)}” must be paired again before it can be used.`, "Remove"))) return;
        try {
          await revokeDevice(device.id);
          say("The device was removed.");
        } catch (error) {
          say(/** @type {Error} */ (error).message);
        }
        await list(body, say);
      };
      return make(
        "li",
        { class: "device" },
        icon("phone"),
        make("div", {}, make("strong", {}, deviceName(device.name), device.current ? " (this one)" : ""), make("span", { class: "quiet" }, seen(device))),
        make("button", { type: "button", class: "button", "aria-label": `Remove ${deviceName(device.name)}`, onclick: remove }, "Remove"),
      );
    });
    parts.push(make("ul", { class: "device-list" }, ...rows));
  }
  body.replaceChildren(...parts);
}

/** A User-Agent in words: the system and the browser. */
export function deviceName(/** @type {string} */ agent) {
  const systems = [["iPhone", /iPhone/], ["iPad", /iPad/], ["Android", /Android/], ["Windows", /Windows/], ["Mac", /Macintosh/], ["Chromebook", /CrOS/], ["Linux", /Linux/]];
  const browsers = [["Edge", /Edg/], ["Firefox", /Firefox|FxiOS/], ["Samsung Internet", /SamsungBrowser/], ["Opera", /OPR\//], ["Chrome", /Chrome|CriOS/], ["Safari", /Safari/]];
  const first = (/** @type {any[][]} */ names) => names.find(([, pattern]) => pattern.test(agent))?.[0];
  const [system, browser] = [first(systems), first(browsers)];
  if (system && browser) return `${system}, ${browser}`;
  return agent.slice(0, 60) || "A device without a name";
}

/** @param {import("./api.js").Device} device */
function seen(device) {
  const time = instant(device.last_seen ?? device.paired_at);
  return time === null ? "" : `last used: ${day(time)}`;
}

/** The server may give seconds since 1970, or a date as text. */
function instant(/** @type {any} */ value) {
  const time = typeof value === "number" ? value * 1000 : Date.parse(value);
  return Number.isFinite(time) ? time : null;
}
