// Keeps the files of the page for when there is no network. Another version is kept whole before the old one goes.

const OWN = `ketch ${self.registration.scope} `; // other pages of the same host keep files of their own
const VERSION = OWN + "VERSION";
const FILES = [];

self.addEventListener("install", (event) => {
  event.waitUntil(
    (async () => {
      const kept = await caches.open(VERSION);
      await kept.addAll(FILES.map((each) => new Request(each, { cache: "reload" })));
      await self.skipWaiting();
    })(),
  );
});

self.addEventListener("activate", (event) => {
  event.waitUntil(
    (async () => {
      const others = (await caches.keys()).filter((each) => each.startsWith(OWN) && each !== VERSION);
      await Promise.all(others.map((each) => caches.delete(each)));
      await self.clients.claim();
    })(),
  );
});

self.addEventListener("fetch", (event) => {
  const { request } = event;
  if (request.method !== "GET" || new URL(request.url).origin !== self.location.origin) return;
  event.respondWith(
    (async () => {
      const kept = await caches.open(VERSION);
      const found = await kept.match(request.mode === "navigate" ? "./" : request, { ignoreSearch: true });
      return found ?? fetch(request);
    })(),
  );
});
