/** Files of messages: pictures as thumbnails that open large, everything else as a line that downloads it. */
import * as api from "./api.js";
import { h, icon } from "./dom.js";
import { problem, t } from "./i18n.js";
import { dialog, notice } from "./popups.js";

const PICTURE = /^image\/(png|jpeg|gif|webp|avif|bmp)$/; // what a browser draws and nothing else: SVG can hold scripts
const LARGEST_PICTURE = 8 * 1024 * 1024;
const KEPT = 60;

/** Object URLs of pictures, the ones looked at last. */
const urls = new Map();

function keepUrl(id, blob) {
  const url = URL.createObjectURL(blob);
  urls.set(id, url);
  if (urls.size > KEPT) {
    const [oldest, gone] = urls.entries().next().value;
    urls.delete(oldest);
    URL.revokeObjectURL(gone);
  }
  return url;
}

/** A picture's URL; its bytes are kept in this browser, so it is seen without a network too. */
async function pictureUrl(session, { id, type, blob }) {
  if (blob) return URL.createObjectURL(blob);
  if (urls.has(id)) return urls.get(id);
  const cache = await globalThis.caches?.open(`files ${session.me}`);
  const key = new URL(`files/${encodeURIComponent(id)}`, document.baseURI);
  let bytes = await (await cache?.match(key))?.blob();
  if (!bytes) {
    bytes = await api.download(id, session.account.token);
    await cache?.put(key, new Response(bytes));
  }
  return keepUrl(id, new Blob([bytes], { type }));
}

export function sizeText(bytes) {
  if (bytes < 1024) return `${bytes} B`;
  return bytes < 1024 ** 2 ? `${Math.round(bytes / 1024)} KB` : `${(bytes / 1024 ** 2).toFixed(1)} MB`;
}

/** What stands in a message for one of its files. */
export function fileNode(session, file) {
  if (PICTURE.test(file.type) && file.size <= LARGEST_PICTURE) return pictureNode(session, file);
  return lineNode(session, file);
}

function lineNode(session, file) {
  const save = async () => {
    try {
      const href = await api.ticket(file.id, session.account.token);
      const link = h("a", { href, download: file.name, rel: "noopener" });
      document.body.append(link);
      link.click();
      link.remove();
    } catch (error) {
      notice(problem(error));
    }
  };
  const label = t("Download {name}", { name: file.name });
  return h(
    "button",
    { type: "button", class: "file", disabled: !file.id, "aria-label": label, title: label, onclick: save },
    icon("file"),
    h("span", { class: "file-name", dir: "auto" }, file.name),
    h("small", {}, sizeText(file.size)),
  );
}

function pictureNode(session, file) {
  const image = h("img", { alt: file.name, decoding: "async" });
  const button = h("button", { type: "button", class: "picture", "aria-label": t("Open {name}", { name: file.name }), onclick: () => lightbox(session, file) }, image);
  pictureUrl(session, file).then(
    (url) => (image.src = url),
    () => button.replaceWith(lineNode(session, file)),
  );
  image.addEventListener("error", () => button.replaceWith(lineNode(session, file)));
  return button;
}

async function lightbox(session, file) {
  const image = h("img", { alt: file.name });
  const { element } = dialog(file.name, image, h("footer", {}, lineNode(session, file)));
  element.classList.add("lightbox");
  image.src = await pictureUrl(session, file);
}
