// The operator's dashboard: signs in with the admin token, then shows the figures as they come.
import { figures, get, token } from "./api.js";
import { Connections } from "./connections.js";
import { h } from "./dom.js";
import { Figures } from "./figures.js";
import { language, say } from "./i18n.js";
import { Story } from "./story.js";
import { Users } from "./users.js";
import { Wrong } from "./wrong.js";

const RETRY_MS = 2_000;
const place = document.getElementById("place");
let leaving = new AbortController();

document.documentElement.lang = language;
document.title = `MQTT-IM · ${say("title")}`;

function login(problem = "") {
  leaving.abort();
  token.clear();
  const field = h("input", { type: "password", name: "token", required: true, autocomplete: "off", testid: "admin-token" });
  const said = h("p", { class: "problem", role: "alert" }, problem);
  const submit = async (event) => {
    event.preventDefault();
    token.set(field.value.trim());
    try {
      await get("stats");
      dashboard();
    } catch (error) {
      token.clear();
      said.textContent = error.status === 401 || error.status === 403 ? say("wrong_token") : error.status === 404 ? say("switched_off") : error.message;
      field.select();
    }
  };
  place.replaceChildren(h("form", { class: "login", onsubmit: submit }, h("h1", {}, `MQTT-IM · ${say("title")}`),
    h("label", {}, say("token"), field), said, h("button", { class: "primary", type: "submit", testid: "admin-submit" }, say("sign_in"))));
  field.focus();
}

function dashboard() {
  leaving = new AbortController();
  const state = h("span", { class: "state", role: "status", "data-state": "connecting" });
  const wrong = h("div", { class: "wrong", role: "status", "aria-live": "polite" });
  const shown = new Figures();
  place.replaceChildren(
    h("header", {}, h("h1", {}, `MQTT-IM · ${say("title")}`), state, h("span", { class: "space" }),
      h("button", { type: "button", onclick: () => login() }, say("sign_out"))),
    h("main", {}, h("section", {}, h("h2", { class: "for-readers" }, say("now")), wrong), shown.element, shown.lists,
      new Users().element, h("div", { class: "columns" }, new Connections().element, new Story().element)));
  follow(state, wrong, shown, leaving.signal);
}

async function follow(state, wrong, shown, signal) {
  const eye = new Wrong();
  while (!signal.aborted) {
    let why = say("wrong_away");
    try {
      for await (const stats of figures(signal)) {
        say_state(state, "live");
        shown.show(stats);
        tell(wrong, eye.look(stats));
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error.status === 401 || error.status === 403) { login(say("wrong_token")); return; }
      if (error.status) why = error.message; // it does answer, and says why not with figures
    }
    if (signal.aborted) return;
    say_state(state, "lost");
    tell(wrong, [why]);
    await new Promise((resolve) => { setTimeout(resolve, RETRY_MS); });
  }
}

function say_state(element, state) {
  if (element.dataset.state === state) return;
  element.dataset.state = state;
  element.textContent = say(state);
}

function tell(place_, sentences) {
  const text = sentences.join("\n");
  if (place_.dataset.text === text && place_.children.length) return;
  place_.dataset.text = text;
  place_.replaceChildren(...(sentences.length ? sentences.map((sentence) => h("p", { class: "bad" }, sentence)) : [h("p", { class: "well" }, say("all_well"))]));
}

if (token.get()) dashboard();
else login();
