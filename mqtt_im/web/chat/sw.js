/**
 * Lets the page open without a network. The server writes the version and the files of this version in here, so a new version is
 * a new service worker; each version's files are kept as a whole and never mixed.
 */
const VERSION = "@VERSION@";
const FILES = ["@FILES@"];
const CACHE = `page ${VERSION}`;
const PATIENCE_MS = 3_000;

const page = new URL("./", self.location).href;
const base = new URL(`web/${VERSION}/`, page).href;

self.addEventListener("install", (event) => {
  const keep = async () => {
    const cache = await caches.open(CACHE);
    await cache.addAll([page, ...FILES.map((file) => base + file)]);
    await self.skipWaiting();
  };
  event.waitUntil(keep());
});

self.addEventListener("activate", (event) => {
  const tidy = async () => {
    const names = (await caches.keys()).filter((name) => name.startsWith("page ") && name !== CACHE);
    await Promise.all(names.map((name) => caches.delete(name)));
    await self.clients.claim();
  };
  event.waitUntil(tidy());
});

/** The page from the server; where that takes too long, or does not answer well, the kept one. */
async function openPage(request) {
  const kept = await caches.match(page);
  if (!kept) return fetch(request);
  try {
    const response = await fetch(request, { signal: AbortSignal.timeout(PATIENCE_MS) });
    return response.ok ? response : kept;
  } catch {
    return kept;
  }
}

self.addEventListener("fetch", (event) => {
  const { request } = event;
  if (request.method !== "GET") return;
  const url = request.url.split(/[?#]/)[0];
  if (request.mode === "navigate" && url === page) event.respondWith(openPage(request));
  else if (url.startsWith(base)) event.respondWith(caches.match(url).then((kept) => kept ?? fetch(request)));
});

/** The pages of the chat that are open; there are other pages under the same address. */
async function chats() {
  const all = await self.clients.matchAll({ type: "window", includeUncontrolled: true });
  return all.filter((client) => client.url.split(/[?#]/)[0] === page);
}

/** How many messages a push tells of, and the texts of the latest conversation, as far as they make sense. */
function toldBy(data) {
  try {
    const { count, conversations } = data.json();
    return { count, latest: Object.fromEntries(Object.entries(conversations[0]).filter(([, value]) => typeof value === "string")) };
  } catch {
    return { count: 0, latest: {} };
  }
}

/** What the server tells while no page is connected (it is decrypted already). A page that is in view shows it by itself. */
self.addEventListener("push", (event) => {
  const show = async () => {
    const { count, latest } = toldBy(event.data);
    const open = await chats();
    if (open.some((client) => client.visibilityState === "visible")) return;
    const more = count > 1 ? ` (${count})` : "";
    const from = latest.conv?.startsWith("#") ? `${latest.from}: ` : "";
    await self.registration.showNotification(`${latest.name ?? latest.from ?? "MQTT-IM"}${more}`, {
      body: `${from}${latest.body ?? ""}` || "✉",
      tag: latest.conv ?? "mqtt-im",
      data: { conv: latest.conv },
    });
  };
  event.waitUntil(show());
});

self.addEventListener("notificationclick", (event) => {
  event.notification.close();
  const conv = event.notification.data?.conv;
  const show = async () => {
    const open = await chats();
    const client = open.find((each) => each.visibilityState === "visible") ?? open[0];
    if (!client) return self.clients.openWindow(conv ? `${page}#/${encodeURIComponent(conv)}` : page);
    await client.focus();
    client.postMessage({ open: conv });
  };
  event.waitUntil(show());
});
