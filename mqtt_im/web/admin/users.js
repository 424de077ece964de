// Users, and, when one is opened, the user's devices and how far each is behind.
import { act, get } from "./api.js";
import { h } from "./dom.js";
import { moment, number, say } from "./i18n.js";

const path = (user) => `users/${encodeURIComponent(user)}`;

export class Users {
  #rows = h("tbody");
  #more = h("button", { type: "button", onclick: () => this.#load(this.#next), hidden: true }, say("more"));
  #said = h("p", { class: "quiet", role: "status" });
  #name = h("input", { type: "search", name: "user", autocomplete: "off", spellcheck: "false" });
  #next = null;

  constructor() {
    const form = h("form", { class: "tools", onsubmit: (event) => { event.preventDefault(); this.#find(); } },
      h("label", {}, say("find"), this.#name), h("button", { type: "submit" }, say("search")));
    this.element = h("section", { class: "card" }, h("h2", {}, say("users")), form,
      h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, say("name")), h("th", { scope: "col" }, say("state")),
        h("th", { scope: "col", class: "number" }, say("devices")), h("th", { scope: "col", class: "narrow-off" }, say("created")))), this.#rows),
      this.#said, this.#more);
    this.#load(null);
  }

  async #load(after) {
    try {
      const page = await get(`users?limit=50${after ? `&after=${encodeURIComponent(after)}` : ""}`);
      if (!after) this.#rows.replaceChildren();
      this.#rows.append(...page.users.flatMap((user) => this.#row(user)));
      this.#next = page.next ?? null;
      this.#more.hidden = !page.more;
      this.#said.textContent = this.#rows.children.length ? "" : say("none");
    } catch (problem) {
      this.#said.textContent = problem.message;
    }
  }

  async #find() {
    const wanted = this.#name.value.trim();
    if (!wanted) { this.#load(null); return; }
    try {
      this.#rows.replaceChildren(...this.#row(await get(path(wanted))));
      this.#said.textContent = "";
    } catch (problem) {
      this.#rows.replaceChildren();
      this.#said.textContent = problem.status === 404 ? say("no_user") : problem.message;
    }
    this.#more.hidden = true;
  }

  #row(user) {
    const inside = h("td", { colspan: 4 });
    const below = h("tr", { hidden: true }, inside);
    const toggle = async () => {
      below.hidden = !below.hidden;
      button.setAttribute("aria-expanded", String(!below.hidden));
      if (!below.hidden) await this.#open(user.user, inside);
    };
    const button = h("button", { type: "button", class: "row-button", "aria-expanded": "false" }, user.user);
    const devices = Array.isArray(user.devices) ? user.devices.length : user.devices;
    const row = h("tr", { testid: "user-row", "data-user": user.user, onclick: toggle }, h("td", {}, button),
      h("td", { class: user.online ? "online" : "quiet" }, say(user.online ? "online" : "offline")),
      h("td", { class: "number" }, number(devices)), h("td", { class: "narrow-off" }, moment(user.created)));
    return [row, below];
  }

  async #open(user, place) {
    try {
      const found = await get(`${path(user)}/devices`);
      const rows = found.devices.map((device) => h("tr", { testid: "device-row", "data-device": device.device },
        h("td", {}, device.device),
        h("td", { class: device.online ? "online" : "quiet" }, say(device.online ? "online" : "offline")),
        h("td", { class: "number" }, `${number(device.pos)} / ${number(device.head)}`),
        h("td", { class: device.lag ? "number behind" : "number" }, number(device.lag)),
        h("td", { class: "narrow-off" }, [device.protocol, device.address, device.node].filter(Boolean).join(" · ") || "–"),
        h("td", { class: "narrow-off" }, moment(device.last_seen)),
        h("td", {}, h("button", { type: "button", class: "danger", onclick: () => this.#forget(user, device.device, place) }, say("forget")))));
      const headings = ["device", "state", "position", "lag", "protocol", "last_seen"].map((key) =>
        h("th", { scope: "col", class: key === "position" || key === "lag" ? "number" : key === "last_seen" || key === "protocol" ? "narrow-off" : "" }, say(key)));
      const silent = found.not_answering ?? [];
      place.replaceChildren(h("div", { class: "inside" }, silent.length ? h("p", { class: "problem" }, say("not_answering", silent.join(", "))) : [],
        rows.length ? h("table", {}, h("thead", {}, h("tr", {}, headings, h("th"))), h("tbody", {}, rows)) : h("p", { class: "quiet" }, say("no_devices")),
        h("button", { type: "button", class: "danger", onclick: () => this.#disconnect(user, place) }, say("disconnect"))));
    } catch (problem) {
      place.replaceChildren(h("p", { class: "problem" }, problem.message));
    }
  }

  #disconnect(user, place) {
    return this.#done(user, place, act("POST", `${path(user)}/disconnect`));
  }

  async #forget(user, device, place) {
    if (!window.confirm(say("sure_forget"))) return;
    await this.#done(user, place, act("DELETE", `${path(user)}/devices/${encodeURIComponent(device)}`));
  }

  /** What was done shows; that it was not is told above the devices, which stay as they were. */
  async #done(user, place, doing) {
    try {
      await doing;
    } catch (problem) {
      place.querySelector(":scope > .problem")?.remove();
      place.prepend(h("p", { class: "problem", role: "alert" }, problem.message));
      return;
    }
    await this.#open(user, place);
  }
}
