/** The page before somebody is logged in. */
import * as api from "./api.js";
import { isUser, newId } from "../core/names.js";
import { h } from "./dom.js";
import { problem, t } from "./i18n.js";
import { field } from "./popups.js";
import * as accounts from "./accounts.js";

/**
 * Shows it in `place`; `done(account)` is called with who is in. `reason` is said above the form; `user` is filled in.
 */
export function showLogin(place, facts, done, { reason = "", user = "" } = {}) {
  const isOpen = facts.mode === "open";
  const said = h("p", { class: "problem", role: "alert" }, reason);
  const name = h("input", {
    name: "user", required: true, autocomplete: "username", autocapitalize: "none", spellcheck: "false", maxlength: 64, value: user,
    data: { testid: "login-user" },
  });
  const password = h("input", {
    name: "password", type: "password", required: true, autocomplete: "current-password", data: { testid: "login-password" },
  });
  const button = h("button", { class: "primary", type: "submit", data: { testid: "login-submit" } }, t("Log in"));
  let how = "login";
  const change = facts.registration && h("button", { type: "button", class: "link", onclick: () => turn() }, t("Make a new account"));
  const title = h("h1", {}, "MQTT-IM");
  const passwordLabel = facts.mode === "jwt" ? t("Token") : t("Password");

  function turn() {
    how = how === "login" ? "register" : "login";
    button.textContent = how === "login" ? t("Log in") : t("Make the account");
    change.textContent = how === "login" ? t("Make a new account") : t("I have an account");
    password.autocomplete = how === "login" ? "current-password" : "new-password";
    said.textContent = "";
    name.focus();
  }

  async function submit(event) {
    event.preventDefault();
    if (button.disabled) return;
    const who = name.value.trim();
    if (!isUser(who)) {
      said.textContent = t("A name has 1 to 64 of the letters A–Z and a–z, digits, and _ . -");
      name.focus();
      return;
    }
    if (!isOpen && !password.value) {
      said.textContent = t("The password is missing.");
      password.focus();
      return;
    }
    button.disabled = true;
    said.textContent = "";
    try {
      done(await logIn(facts, how, who, isOpen ? undefined : password.value));
    } catch (error) {
      said.textContent = error instanceof TypeError ? t("The server can't be reached.") : registering(how, error);
      (isOpen ? name : password).focus();
    } finally {
      button.disabled = false;
    }
  }

  const form = h(
    "form",
    { class: "login", novalidate: true, onsubmit: submit },
    title,
    h("p", { class: "tagline" }, isOpen ? t("Any name will do: this server is for trying things.") : t("Messages that arrive.")),
    said,
    field(t("Name"), name),
    !isOpen && field(passwordLabel, password),
    button,
    change,
  );
  place.replaceChildren(h("main", { class: "login-page" }, form));
  (user ? password : name).focus();
}

function registering(how, error) {
  if (how === "register" && error.code === "bad_field") return t("The password needs 8 characters at least.");
  return problem(error);
}

/** An account for `user`, kept in this browser. Raises what `api` raises. */
export async function logIn(facts, how, user, password) {
  // A JWT is the password and the bearer as it is; there is nothing to log in to.
  const answer = facts.mode === "jwt" ? { user, token: password } : await api.login(how, user, password);
  const known = await accounts.find(user);
  const account = { user, token: answer.token, expires: answer.expires ?? null, device: known?.device ?? `web-${newId().slice(0, 12)}` };
  await accounts.keep(account);
  return account;
}

/** The user that a JWT names in its payload, or null. What it says is checked by the server. */
export function userOfToken(token, claim = "sub") {
  try {
    const payload = token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/");
    const user = JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(payload), (char) => char.codePointAt(0))))[claim];
    return typeof user === "string" && isUser(user) ? user : null;
  } catch {
    return null;
  }
}
