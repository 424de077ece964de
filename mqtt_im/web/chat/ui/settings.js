/** Settings and devices of the one who is logged in. */
import { h } from "./dom.js";
import { full, language, problem, t } from "./i18n.js";
import { canNotify, switchNotifications } from "./notify.js";
import { confirm, dialog, field, notice } from "./popups.js";
import { prefs, setPref, showTheme } from "./prefs.js";

const select = (value, options, change) =>
  h("select", { onchange: (event) => change(event.target.value) },
    options.map(([each, label]) => h("option", { value: each, selected: each === value }, label)));

function toggle(label, isOn, change) {
  const box = h("input", { type: "checkbox", role: "switch", checked: isOn, onchange: async () => {
    try {
      box.checked = await change(box.checked);
    } catch (error) {
      box.checked = !box.checked;
      notice(problem(error));
    }
  } });
  return h("label", { class: "toggle" }, box, h("span", {}, label));
}

/** `reload()` shows the page anew, in another language. */
export function showSettings(session, reload) {
  const server = h("div", {}, h("p", { class: "quiet" }, "…"));
  const shown = dialog(
    t("Settings"),
    field(t("Language"), select(language(), [["en", "English"], ["zh", "中文"]], (value) => {
      setPref("language", value);
      shown.close();
      reload();
    })),
    field(t("Appearance"), select(prefs.theme, [["auto", t("As the system")], ["light", t("Light")], ["dark", t("Dark")]], (value) => {
      setPref("theme", value);
      showTheme();
    })),
    canNotify() && toggle(t("Notifications on this device"), prefs.notify && Notification.permission === "granted", (on) => switchNotifications(session, on)),
    server,
  );
  const change = async (field, on) => (await session.im.do("settings", { [field]: on }), on);
  const show = ({ read_receipts, presence }) => server.replaceChildren(
    toggle(t("Others see what I have read"), read_receipts, (on) => change("read_receipts", on)),
    toggle(t("Others see when I am online"), presence, (on) => change("presence", on)),
  );
  const known = session.im.own.settings;
  if (known) show(known); // what was set offline, too
  session.im.fetchSettings().then(show, (error) => known || server.replaceChildren(h("p", { class: "quiet" }, problem(error))));
}

/** The user's devices; those that will not come back can be forgotten. */
export async function showDevices(session) {
  const list = h("ul", { class: "members", "aria-label": t("Devices") });
  dialog(t("Devices"), list);
  const refresh = async () => {
    try {
      const { devices } = await session.im.ask("devices");
      list.replaceChildren(...devices.map(row));
    } catch (error) {
      list.replaceChildren(h("li", {}, problem(error)));
    }
  };
  const row = ({ device, online, last_seen }) => {
    const isThis = device === session.account.device;
    const forget = h("button", { type: "button", class: "danger", "aria-label": t("Forget {device}", { device }), onclick: async () => {
      if (!(await confirm(t("Forget {device}? It has to log in again and begins anew.", { device }), t("Forget")))) return;
      await session.im.ask("device.forget", { device }).catch((error) => notice(problem(error)));
      refresh();
    } }, t("Forget"));
    const state = isThis ? t("this browser") : online ? t("online") : last_seen ? t("last seen {when}", { when: full(last_seen) }) : "";
    return h("li", {}, h("span", { class: "name" }, device), h("span", { class: "quiet" }, state), !isThis && forget);
  };
  await refresh();
}
