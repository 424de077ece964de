// The figures: tiles with plots for what one looks at first, lists for the rest.
import { h } from "./dom.js";
import { nameOf, say, shown } from "./i18n.js";
import { Plot } from "./plot.js";

/** The tiles, each with the figure that is plotted, and one that is drawn beside it. */
const TILES = [
  ["connections", "users_online"],
  ["messages_per_second"],
  ["commit_p99_ms", "commit_p50_ms"],
  ["delivery_p99_ms", "delivery_p50_ms"],
  ["ledger_queue_jobs"],
  ["devices_behind", "worst_lag_items"],
  ["cpu_percent"],
  ["memory_bytes"],
];
const TILED = new Set(TILES.flat());
const DRAWN_BESIDE = new Set(["commit_p50_ms", "delivery_p50_ms"]);

class Value {
  constructor(name, tag = "dd", kind = "") {
    this.name = name;
    this.number = h("span");
    this.unit = h("span", { class: "unit" });
    this.element = h(tag, { testid: "figure", "data-name": name, class: kind }, this.number, this.unit);
  }

  show(value) {
    const [text, unit] = shown(this.name, value);
    if (this.number.textContent !== text) this.number.textContent = text;
    const spaced = unit && ` ${unit}`;
    if (this.unit.textContent !== spaced) this.unit.textContent = spaced;
  }
}

class Tile {
  constructor(name, beside) {
    this.value = new Value(name, "p", "value");
    this.beside = beside && new Value(beside, "span");
    this.plot = new Plot();
    this.element = h("section", { class: "tile" },
      h("h3", { class: "name" }, nameOf(name)), this.value.element,
      h("p", { class: "also" }, this.beside ? [`${nameOf(beside)} `, this.beside.element] : "\u00a0"), this.plot.element);
  }

  show(stats) {
    this.value.show(stats[this.value.name]);
    this.beside?.show(stats[this.beside.name]);
    this.plot.add(stats[this.value.name], this.beside && DRAWN_BESIDE.has(this.beside.name) ? stats[this.beside.name] : null);
  }
}

class List {
  #values = new Map();
  #none = h("p", { class: "quiet" }, say("none"));
  #list = h("dl");

  constructor(title) {
    this.element = h("section", { class: "card" }, h("h2", {}, title), this.#none, this.#list);
  }

  show(entries) {
    for (const [name, value] of entries) {
      let shownValue = this.#values.get(name);
      if (!shownValue) {
        shownValue = new Value(name);
        this.#values.set(name, shownValue);
        this.#list.append(h("dt", {}, nameOf(name)), shownValue.element);
      }
      shownValue.show(value);
    }
    this.#none.hidden = this.#values.size > 0;
  }
}

export class Figures {
  #tiles = TILES.map(([name, beside]) => new Tile(name, beside));
  #lists = { refusals: new List(say("refusals")), closes: new List(say("closes")), others: new List(say("others")) };

  constructor() {
    this.element = h("section", { "aria-label": say("figures") },
      h("div", { class: "tiles" }, this.#tiles.map((tile) => tile.element)));
    this.lists = h("div", { class: "columns" }, Object.values(this.#lists).map((list) => list.element));
  }

  show(stats) {
    for (const tile of this.#tiles) tile.show(stats);
    const parts = { refusals: [], closes: [], others: [] };
    for (const [name, value] of Object.entries(stats)) {
      if (TILED.has(name)) continue;
      const part = name.startsWith("refusals_") ? "refusals" : name.startsWith("closes_") ? "closes" : "others";
      parts[part].push([name, value]);
    }
    for (const [part, entries] of Object.entries(parts)) this.#lists[part].show(entries);
  }
}
