/** Sound and films, played where they stand. Nothing of them is loaded before somebody wants to see or hear them. */
import * as api from "./api.js";
import { h, icon } from "./dom.js";
import { t } from "./i18n.js";

const AGAIN_MS = 10_000; // a URL that fails sooner than that fails for good

const tagOf = (type) => /^(audio|video)\//.exec(type)?.[1];

export function isPlayable({ type }) {
  const tag = tagOf(type);
  return !!tag && document.createElement(tag).canPlayType(type) !== "";
}

/** A button that becomes the player; `line()` makes what stands there where the browser can't play it. */
export function playerNode(session, file, line) {
  const label = t("Play {name}", { name: file.name });
  const place = h("div", { class: "media" });
  const start = h("button", { type: "button", class: "file play", "aria-label": label, title: label, onclick: () => play() }, icon("play"), h("span", { class: "file-name", dir: "auto" }, file.name));
  place.append(start);

  async function play() {
    start.disabled = true;
    const player = h(tagOf(file.type), { controls: true, playsinline: true, "aria-label": file.name });
    let since = 0;
    const load = async () => {
      since = Date.now();
      player.src = file.blob ? URL.createObjectURL(file.blob) : await api.ticket(file.id, session.account.token);
    };
    const giveUp = () => place.replaceChildren(line());
    player.addEventListener("error", () => {
      if (file.blob || Date.now() - since < AGAIN_MS) return giveUp();
      const at = player.currentTime; // the ticket has ended: another one, and on from there
      return load().then(() => ((player.currentTime = at), player.play()), giveUp);
    });
    try {
      await load();
      place.replaceChildren(player);
      player.focus();
      player.play().catch(() => {}); // the browser wants the user to press play
    } catch {
      giveUp();
    }
  }
  return place;
}
