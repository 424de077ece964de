/** The page begins here: who is in, else the login; then the conversations. */
import * as api from "./ui/api.js";
import * as accounts from "./ui/accounts.js";
import { App } from "./ui/app.js";
import { forgetDrafts } from "./ui/composer.js";
import { language, t } from "./ui/i18n.js";
import { logIn, showLogin, userOfToken } from "./ui/login.js";
import { showTheme } from "./ui/prefs.js";
import { Session } from "./ui/session.js";

const FACTS = "mqtt-im server";
const place = document.getElementById("place");
let app = null;

showTheme();
document.documentElement.lang = language();

/** What the server says of itself; without a network, what it said last. */
async function serverFacts() {
  try {
    const facts = await api.serverFacts();
    localStorage.setItem(FACTS, JSON.stringify(facts));
    return facts;
  } catch (error) {
    const known = localStorage.getItem(FACTS);
    if (known) return JSON.parse(known);
    throw error;
  }
}

/** `isFresh`: the name and password, or token, were given just now. */
async function show(account, facts, isFresh = false) {
  let session = null;
  let wasIn = false;
  const ended = async (why) => {
    if (!session) return;
    const over = session;
    session = null;
    app?.close();
    app = null;
    if (why === "reload") {
      location.reload();
    } else if (why === "refused") {
      // What waits in the outbox stays: it goes when the same user is in again.
      over.im.stop();
      const reason = isFresh && !wasIn ? t("Wrong name or password.") : t("Your session has ended. Log in again.");
      login(facts, { user: account.user, reason });
    } else {
      if (why === "logout") {
        forgetDrafts();
        await over.logout();
      } else over.im.stop();
      history.replaceState(null, "", location.pathname);
      login(facts);
    }
  };
  session = await Session.start(account, facts, () => ended("elsewhere"));
  session.im.on("state", (state) => (wasIn ||= state === "online"));
  app = new App(session, place, ended);
  for (const name of ["online", "offline", "pageshow"]) addEventListener(name, () => session?.im.wake());
  document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && session?.im.wake());
  navigator.storage?.persist?.();
}

function login(facts, options) {
  document.title = "MQTT-IM";
  showLogin(place, facts, (account) => show(account, facts, true), options);
}

/** A token that another system's page has sent along: `#token=…`. It leaves the address at once. */
async function fromFragment(facts) {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!token) return null;
  history.replaceState(null, "", location.pathname);
  const user = userOfToken(token, facts.user_claim);
  return user && facts.mode === "jwt" ? logIn(facts, "login", user, token) : null;
}

const isToken = () => location.hash.startsWith("#token=");

async function start() {
  addEventListener("hashchange", () => isToken() && location.reload());
  if ("serviceWorker" in navigator) navigator.serviceWorker.register("sw.js").catch(() => {}); // works without, online
  const known = localStorage.getItem(FACTS);
  const account = await accounts.current();
  if (account && known && !isToken()) {
    serverFacts().catch(() => {});
    await show(account, JSON.parse(known));
    return;
  }
  const facts = await serverFacts();
  const given = (await fromFragment(facts)) ?? account;
  if (given) await show(given, facts);
  else login(facts);
}

start().catch((error) => {
  console.error(error);
  place.textContent = t("The page could not start: {why}", { why: error.message });
});
