// Who is connected now.
import { get } from "./api.js";
import { h } from "./dom.js";
import { moment, number, say } from "./i18n.js";

export class Connections {
  #rows = h("tbody");
  #said = h("p", { class: "quiet", role: "status" });
  #more = h("button", { type: "button", hidden: true, onclick: () => this.#load(this.#next) }, say("more"));
  #next = null;

  constructor() {
    const column = (key, kind = "") => h("th", { scope: "col", class: kind }, say(key));
    this.element = h("section", { class: "card" }, h("h2", {}, say("connections")),
      h("div", { class: "tools" }, h("button", { type: "button", onclick: () => this.#load(null) }, say("refresh"))),
      h("table", {}, h("thead", {}, h("tr", {}, column("user"), column("device"), column("protocol"), column("address", "narrow-off"),
        column("since", "narrow-off"), column("unacknowledged", "number"), column("node", "narrow-off"))), this.#rows), this.#said, this.#more);
    this.#load(null);
  }

  async #load(after) {
    try {
      const page = await get(`connections?limit=50${after ? `&after=${encodeURIComponent(after)}` : ""}`);
      if (!after) this.#rows.replaceChildren();
      this.#rows.append(...page.connections.map((one) => h("tr", {}, h("td", {}, one.user || "–"), h("td", {}, one.device || "–"), h("td", {}, one.protocol),
        h("td", { class: "narrow-off" }, one.address), h("td", { class: "narrow-off" }, moment(one.since)), h("td", { class: "number" }, number(one.unacknowledged ?? 0)), h("td", { class: "narrow-off" }, one.node))));
      this.#next = page.next ?? null;
      this.#more.hidden = !page.more;
      const silent = page.not_answering ?? [];
      this.#said.textContent = silent.length ? say("not_answering", silent.join(", ")) : this.#rows.children.length ? "" : say("none");
    } catch (problem) {
      this.#said.textContent = problem.message;
    }
  }
}
