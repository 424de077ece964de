/** Notifications of this browser while the page is not in view, and the count in the page's title. */
import { t } from "./i18n.js";
import { prefs, setPref } from "./prefs.js";
import { isGroup } from "../core/names.js";

export const canNotify = () => "Notification" in globalThis && isSecureContext;

/** Switches them on or off, asking the user where the browser wants that; whether they are on. */
export async function switchNotifications(session, on) {
  const granted = on && (await Notification.requestPermission()) === "granted";
  setPref("notify", granted);
  return granted;
}

/** Tells of what comes as long as the session lasts; `open(conv)` is called when the user follows one. */
export function notifyOf(session, open) {
  session.im.on("news", async (messages) => {
    if (!session.im.messenger) return; // one tab tells
    if (document.visibilityState === "visible" || !prefs.notify || !canNotify() || Notification.permission !== "granted") return;
    for (const message of messages.slice(-3)) {
      const record = session.im.convs.get(message.conv);
      const isCalled = message.mentions?.some((name) => name === session.me || name === "*");
      if (record?.muted > Date.now() && !isCalled) continue;
      const name = session.nameOf(message.conv);
      const body = typeof message.body === "string" ? message.body.slice(0, 200) : t("New message");
      const options = { body: isGroup(message.conv) ? `${message.from}: ${body}` : body, tag: message.conv, data: { conv: message.conv } };
      const registration = await navigator.serviceWorker?.getRegistration();
      if (registration) await registration.showNotification(name, options);
      else new Notification(name, options).onclick = () => (window.focus(), open(message.conv));
    }
  });
  const count = () => {
    let unread = 0;
    for (const conv of session.im.convs.values()) if (!(conv.muted > Date.now())) unread += conv.unread;
    document.title = unread ? `(${unread}) MQTT-IM` : "MQTT-IM";
  };
  session.im.on("convs", count);
  session.im.on("reset", count);
  count();
  navigator.serviceWorker?.addEventListener("message", ({ data }) => data?.open && open(data.open));
}
