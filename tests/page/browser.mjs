// Opens Debian's Chromium for the tests, and knows the page's controls by the names that people hear.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { chromium } from "playwright-core";

export const PHONE = { viewport: { width: 375, height: 740 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true };
export const DESKTOP = { viewport: { width: 1440, height: 900 } };

/** The host name that stands for a computer at home: an origin without a secure context. */
export const HOME = "dwindle.test";

export async function openBrowser() {
  const executablePath = process.env.CHROMIUM ?? ["/usr/bin/chromium", "/usr/bin/chromium-browser"].find(existsSync);
  assert.ok(executablePath, "Chromium is missing: apt-get install chromium, or set CHROMIUM to its path");
  const root = process.getuid?.() === 0;
  // Nothing but the servers under test has an address; a request to anywhere else fails, and is counted all the same.
  const servers = ["DWINDLE_URL", "DWINDLE_BLIND_URL", "DWINDLE_LAN_URL"].flatMap((name) => (process.env[name] ? [new URL(process.env[name]).hostname] : []));
  const known = new Set(["127.0.0.1", "localhost", ...servers]);
  const rules = [`MAP ${HOME} 127.0.0.1`, "MAP * ~NOTFOUND", ...[...known].map((host) => `EXCLUDE ${host}`)];
  return chromium.launch({
    executablePath,
    args: [...(root ? ["--no-sandbox"] : []), "--disable-dev-shm-usage", "--disable-gpu", "--disable-extensions", `--host-resolver-rules=${rules.join(", ")}`],
  });
}

/**
 * A page with a storage of its own, which collects everything that must not happen.
 * @param {import("playwright-core").Browser} browser
 * @param {string} url
 * @param {import("playwright-core").BrowserContextOptions} [options]
 */
export async function openPage(browser, url, options = DESKTOP) {
  const context = await browser.newContext({ ...options, serviceWorkers: options.serviceWorkers ?? "block" });
  const page = await context.newPage();
  // A busy machine of a CI takes its time.
  page.setDefaultTimeout(60_000);
  const seen = { errors: /** @type {string[]} */ ([]), foreign: /** @type {string[]} */ ([]) };
  const origin = new URL(url).origin;
  page.on("pageerror", (error) => seen.errors.push(String(error)));
  page.on("console", (message) => {
    // A response with an error status is part of some tests; a violation of the security policy is of none.
    if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) seen.errors.push(message.text());
  });
  page.on("request", (request) => {
    const address = request.url();
    if (!address.startsWith(`${origin}/`) && !/^(blob|data):/.test(address)) seen.foreign.push(address);
  });
  await page.goto(url);
  await page.locator("html[data-ready]").waitFor();
  return { page, context, seen };
}

/** What the tests do again and again. */
export function controls(page) {
  const draft = page.getByRole("textbox", { name: "Message" });
  return {
    draft,
    sendButton: page.getByRole("button", { name: "Send", exact: true }),
    stopButton: page.getByRole("button", { name: "Stop the answer" }),
    answers: page.locator(".answer"),
    lastAnswer: page.locator(".answer").last(),
    async send(text) {
      await draft.fill(text);
      await page.getByRole("button", { name: "Send", exact: true }).click();
    },
    /** Waits until nothing is being written any more. */
    async finished() {
      await page.locator("#send").waitFor({ state: "visible" });
      await page.locator(".answer .after").last().waitFor({ state: "attached" });
    },
  };
}
