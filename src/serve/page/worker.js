// The service worker: keeps the page's files, so that the app opens while the server is not running.
// The server is always asked first, so that a new version is seen at once. Nothing of a chat passes here.

const CACHE = "dwindle-page";
const FILES = [
  "/",
  "/page/announcer.js",
  "/page/api.js",
  "/page/archive-dialog.js",
  "/page/archive.js",
  "/page/composer.js",
  "/page/connection.js",
  "/page/conversation.js",
  "/page/copy.js",
  "/page/devices.js",
  "/page/dialog.js",
  "/page/dom.js",
  "/page/events.js",
  "/page/format.js",
  "/page/gauges.js",
  "/page/history.js",
  "/page/icon-180.png",
  "/page/icon-192.png",
  "/page/icon-512.png",
  "/page/icon-maskable-512.png",
  "/page/icon.svg",
  "/page/intake.js",
  "/page/main.js",
  "/page/manifest.webmanifest",
  "/page/markdown.js",
  "/page/math.js",
  "/page/message.js",
  "/page/panels.css",
  "/page/settings.js",
  "/page/sources.js",
  "/page/store.js",
  "/page/style.css",
  "/page/theme.js",
  "/page/thread.css",
  "/page/thread.js",
  "/page/turn.js",
  "/page/vendor/marked.esm.js",
  "/page/vendor/purify.min.js",
  "/page/vendor/temml.min.js",
];

self.addEventListener("install", (event) => {
  event.waitUntil(
    caches
      .open(CACHE)
      .then((cache) => cache.addAll(FILES))
      .then(() => self.skipWaiting()),
  );
});

self.addEventListener("activate", (event) => {
  event.waitUntil(self.clients.claim());
});

self.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  const ours = url.origin === self.location.origin && FILES.includes(url.pathname);
  if (event.request.method === "GET" && ours && url.search === "") event.respondWith(fresh(event.request));
});

async function fresh(request) {
  try {
    const response = await fetch(request);
    if (response.ok) {
      const copy = response.clone();
      caches.open(CACHE).then((cache) => cache.put(request, copy));
    }
    return response;
  } catch (error) {
    const kept = await caches.match(request);
    if (kept) return kept;
    throw error;
  }
}
