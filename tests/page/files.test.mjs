// The folder of the page agrees with what is written about it, stays small, and has nothing inline.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { test } from "node:test";
import { gzipSync } from "node:zlib";

const PAGE = new URL("../../src/serve/page/", import.meta.url);
const names = (await readdir(PAGE, { recursive: true })).filter((name) => /\.\w+$/.test(name)).sort();
const served = names.filter((name) => /\.(html|css|js|svg|png|webmanifest)$/.test(name));
const text = (name) => readFile(new URL(name, PAGE), "utf8");

test("the README lists every file, and no other", async () => {
  const listed = [...(await text("README.md")).matchAll(/^\| `([^`]+)` \|/gm)].map((match) => match[1]).sort();
  assert.deepEqual(listed, served);
});

test("the service worker keeps every file but its own and the pairing page's", async () => {
  const worker = await text("worker.js");
  const kept = [...worker.matchAll(/^ {2}"(\/.*)",$/gm)].map((match) => match[1]).sort();
  const apart = ["index.html", "pair.html", "pair.css", "worker.js"];
  assert.deepEqual(kept, ["/", ...served.filter((name) => !apart.includes(name)).map((name) => `/page/${name}`)].sort());
});

test("libraries are as their packages published them", async () => {
  const rows = [...(await text("vendor/README.md")).matchAll(/^\| `([^`]+)` .*`([0-9a-f]{64})` \|$/gm)];
  assert.equal(rows.length, 3);
  for (const [, name, hash] of rows) {
    assert.equal(createHash("sha256").update(await readFile(new URL(`vendor/${name}`, PAGE))).digest("hex"), hash, name);
  }
});

test("the page is small", async () => {
  let own = 0;
  let all = 0;
  for (const name of served.filter((name) => /\.(html|css|js)$/.test(name))) {
    const size = gzipSync(await readFile(new URL(name, PAGE)), { level: 9 }).length;
    all += size;
    if (!name.startsWith("vendor/")) own += size;
  }
  assert.ok(own <= 60_000, `our files take ${own} bytes compressed`);
  assert.ok(all <= 150_000, `all files take ${all} bytes compressed`);
});

test("nothing is inline, and nothing names another host", async () => {
  for (const name of served.filter((name) => name.endsWith(".html"))) {
    const html = await text(name);
    assert.ok(!/\sstyle=|<style|\son\w+=/i.test(html), `${name} has inline styles or handlers`);
    for (const [, attributes, content] of html.matchAll(/<script([^>]*)>([^]*?)<\/script>/g)) {
      assert.match(attributes, /src="\/page\//);
      assert.equal(content, "");
    }
  }
  for (const name of served.filter((name) => /\.(html|css|js|webmanifest)$/.test(name) && !name.startsWith("vendor/"))) {
    const hosts = [...(await text(name)).matchAll(/https?:\/\/[\w.-]+/g)].map((match) => match[0]).filter((host) => host !== "http://www.w3.org");
    assert.deepEqual(hosts, [], name);
  }
});

test("each file says first what it is responsible for, and is short", async () => {
  for (const name of served.filter((name) => /\.(css|js)$/.test(name) && !name.startsWith("vendor/"))) {
    const content = await text(name);
    assert.match(content, /^(\/\/ |\/\* )/, name);
    assert.ok(content.split("\n").length <= 600, `${name} is longer than 600 lines`);
  }
});
