/** Notifications of this browser while the page is not in view, and the count in the page's title. */
import * as api from "./api.js";
import { t } from "./i18n.js";
import { prefs, setPref } from "./prefs.js";
import { isGroup } from "../core/names.js";

export const canNotify = () => "Notification" in globalThis && isSecureContext;

let isAsking = Promise.resolve();

/** Switches them on or off, asking the user where the browser wants that; whether they are on. */
export async function switchNotifications(session, on) {
  const answer = permission(on);
  isAsking = answer.catch(() => {});
  const granted = await answer;
  await (granted ? subscribe(session) : unsubscribe(session));
  return granted;
}

async function permission(on) {
  const granted = on && (await Notification.requestPermission()) === "granted";
  setPref("notify", granted);
  return granted;
}

const areOn = () => prefs.notify && canNotify() && Notification.permission === "granted";

/** Web Push, where server and browser have it: the push service wakes the service worker while no page is open. */
async function subscribe({ account, facts }) {
  if (!facts.push_key || !("PushManager" in globalThis)) return;
  try {
    const { pushManager } = await navigator.serviceWorker.ready;
    const options = { userVisibleOnly: true, applicationServerKey: facts.push_key };
    const former = await pushManager.getSubscription();
    const key = former?.options.applicationServerKey;
    if (key && base64Url(key) !== facts.push_key) await former.unsubscribe(); // the server has another key now
    await api.subscribePush(account.device, await pushManager.subscribe(options), account.token);
  } catch (error) {
    console.warn("Web Push:", error.message); // a browser without a push service; the open page notifies all the same
  }
}

/** Ends Web Push for this browser. */
export async function unsubscribe({ account, facts }) {
  if (!facts.push_key || !("serviceWorker" in navigator)) return;
  await api.unsubscribePush(account.device, account.token).catch(() => {}); // offline: the push service tells the server
  const registration = await navigator.serviceWorker.getRegistration();
  const former = await registration?.pushManager?.getSubscription();
  await former?.unsubscribe();
}

const base64Url = (buffer) =>
  btoa(String.fromCharCode(...new Uint8Array(buffer))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");

/** Tells of what comes as long as the session lasts; `open(conv)` is called when the user follows one. */
export function notifyOf(session, open) {
  session.im.on("news", async (messages) => {
    if (!session.im.messenger) return; // one tab tells
    if (document.visibilityState === "visible") return;
    await isAsking; // what comes before the browser has answered is told when it has
    if (!areOn()) return;
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
  let isTold = false;
  session.im.on("state", (state) => {
    if (state !== "online" || isTold || !areOn()) return;
    isTold = true;
    subscribe(session); // once for each page: subscriptions come to an end by themselves
  });
  session.im.on("convs", count);
  session.im.on("reset", count);
  count();
  navigator.serviceWorker?.addEventListener("message", ({ data }) => data?.open && open(data.open));
}
