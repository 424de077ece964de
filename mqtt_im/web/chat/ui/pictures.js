/** Pictures: thumbnails that open large. Those that were seen stay in this browser, as many as there is room for. */
import * as api from "./api.js";
import { h } from "./dom.js";
import { t } from "./i18n.js";
import { dialog } from "./popups.js";

const PICTURE = /^image\/(png|jpeg|gif|webp|avif|bmp)$/; // what a browser draws and nothing else: SVG can hold scripts
const LARGEST = 8 * 1024 * 1024;
const MOST_URLS = 60;
const MOST_BYTES = 100 * 1024 * 1024; // kept on the disk of this browser

export const isPicture = ({ type, size }) => PICTURE.test(type) && size <= LARGEST;

/** Object URLs of pictures, the ones looked at last. */
const urls = new Map();

function keepUrl(key, blob) {
  const url = URL.createObjectURL(blob);
  urls.set(key, url);
  if (urls.size > MOST_URLS) forgetUrl(urls.keys().next().value);
  return url;
}

function forgetUrl(key) {
  URL.revokeObjectURL(urls.get(key));
  urls.delete(key);
}

/** Where this browser keeps them; nothing where it keeps none (no secure context, a private window). */
async function store(session) {
  try {
    return await globalThis.caches?.open(`files ${session.me}`);
  } catch {
    return undefined;
  }
}

const keyOf = ({ conv, seq }, id = "") =>
  new URL(`files/${encodeURIComponent(conv)}/${seq}/${encodeURIComponent(id)}`, document.baseURI).href;

/** A picture's URL; its bytes are kept in this browser, so it is seen without a network too. */
async function urlOf(session, message, { id, type, blob }) {
  if (blob) return URL.createObjectURL(blob);
  const key = keyOf(message, id);
  if (urls.has(key)) return urls.get(key);
  const cache = await store(session);
  let bytes = await (await cache?.match(key))?.blob();
  if (!bytes) {
    bytes = await api.download(id, session.account.token);
    await cache?.put(key, new Response(bytes, { headers: { "Content-Length": bytes.size } })).then(() => shorten(cache), () => {}); // the disk is full: not kept
  }
  return keepUrl(key, new Blob([bytes], { type }));
}

/** Lets go of the pictures that were kept first, where they have become too many. */
async function shorten(cache) {
  const keys = await cache.keys(); // in the order in which they were put
  let room = MOST_BYTES;
  for (const key of keys.reverse()) {
    room -= Number((await cache.match(key))?.headers.get("Content-Length") ?? 0);
    if (room < 0) await cache.delete(key);
  }
}

/** Messages that were taken back take their pictures along. */
export function forgetPictures(session, messages) {
  for (const message of messages) {
    if (!message.recalled) continue;
    const prefix = keyOf(message);
    for (const key of [...urls.keys()]) if (key.startsWith(prefix)) forgetUrl(key);
    store(session).then(async (cache) => {
      for (const key of (await cache?.keys()) ?? []) if (key.url.startsWith(prefix)) await cache.delete(key);
    });
  }
}

/** The thumbnail; `line()` makes what stands there where there is no picture in the file. */
export function pictureNode(session, message, file, line) {
  const image = h("img", { alt: file.name, decoding: "async" });
  const button = h("button", { type: "button", class: "picture", "aria-label": t("Open {name}", { name: file.name }), onclick: () => lightbox(session, message, file, line) }, image);
  urlOf(session, message, file).then(
    (url) => (image.src = url),
    () => button.replaceWith(line()),
  );
  image.addEventListener("error", () => button.replaceWith(line()));
  return button;
}

async function lightbox(session, message, file, line) {
  const image = h("img", { alt: file.name });
  const { element } = dialog(file.name, image, h("footer", {}, line()));
  element.classList.add("lightbox");
  image.src = await urlOf(session, message, file);
}
