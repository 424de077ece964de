// One message's whole story: when it was committed, and how far it has come with each recipient's devices.
import { get } from "./api.js";
import { h } from "./dom.js";
import { moment, number, say } from "./i18n.js";

export class Story {
  #conv = h("input", { name: "conv", placeholder: "alice:bob, #ops", required: true, autocomplete: "off", spellcheck: "false" });
  #seq = h("input", { name: "seq", type: "number", min: 1, required: true });
  #told = h("div", { role: "status" });

  constructor() {
    this.element = h("section", { class: "card" }, h("h2", {}, say("message")),
      h("form", { class: "tools", onsubmit: (event) => { event.preventDefault(); this.#look(); } },
        h("label", {}, say("conversation"), this.#conv), h("label", {}, say("number"), this.#seq),
        h("button", { type: "submit" }, say("show"))), this.#told);
  }

  async #look() {
    try {
      const message = await get(`messages/${encodeURIComponent(this.#conv.value.trim())}/${Number(this.#seq.value)}`);
      this.#told.replaceChildren(...this.#tell(message));
    } catch (problem) {
      this.#told.replaceChildren(h("p", { class: "problem" }, problem.status === 404 ? say("no_message") : problem.message));
    }
  }

  #tell(message) {
    const count = (list) => number(Array.isArray(list) ? list.length : list || 0);
    const facts = h("dl", {}, h("dt", {}, say("from")), h("dd", {}, message.from), h("dt", {}, say("sent_at")), h("dd", {}, moment(message.ts)),
      h("dt", {}, say("edits")), h("dd", {}, count(message.edits)), h("dt", {}, say("reports")), h("dd", {}, count(message.reports)));
    const rows = message.recipients.map((one) => h("tr", {}, h("td", {}, one.user), h("td", { class: "number" }, one.pos === null ? "–" : number(one.pos)),
      h("td", { class: one.read ? "online" : "quiet" }, say(one.read ? "read" : "not_read")),
      h("td", {}, one.devices.map((device) => h("div", {}, `${device.device} `,
        h("span", { class: device.acknowledged ? "online" : "behind" }, say(device.acknowledged ? "acknowledged" : "waiting")))))));
    return [facts, message.recalled && h("p", { class: "behind" }, say("recalled")),
      h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, say("recipients")), h("th", { scope: "col", class: "number" }, say("item")),
        h("th", { scope: "col" }, say("state")), h("th", { scope: "col" }, say("devices")))), h("tbody", {}, rows))].filter(Boolean);
  }
}
