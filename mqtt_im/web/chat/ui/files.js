/** Files of messages: pictures, sound and films are shown where they stand, everything else is a line that downloads it. */
import * as api from "./api.js";
import { h, icon } from "./dom.js";
import { problem, t } from "./i18n.js";
import { isPlayable, playerNode } from "./media.js";
import { isPicture, pictureNode } from "./pictures.js";
import { notice } from "./popups.js";
import { plainName } from "./text.js";

export function sizeText(bytes) {
  if (bytes < 1024) return `${bytes} B`;
  return bytes < 1024 ** 2 ? `${Math.round(bytes / 1024)} KB` : `${(bytes / 1024 ** 2).toFixed(1)} MB`;
}

/** What stands in `message` for one of its files. */
export function fileNode(session, message, file) {
  const shown = { ...file, name: plainName(file.name) };
  const line = () => lineNode(session, shown);
  if (isPicture(shown)) return pictureNode(session, message, shown, line);
  if (isPlayable(shown)) return playerNode(session, shown, line);
  return line();
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
