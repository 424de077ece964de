// A small plot of the last minutes: one filled line, and a second one where two belong together.
import { svg } from "./dom.js";

const POINTS = 180;
const WIDTH = 180;
const HEIGHT = 50;

export class Plot {
  #values = [];
  #seconds = [];
  #area = svg("path", { class: "area" });
  #line = svg("path", { class: "line" });
  #second = svg("path", { class: "second" });

  constructor() {
    this.element = svg("svg", { class: "plot", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" }, this.#area, this.#second, this.#line);
  }

  add(value, second) {
    this.#values.push(value ?? 0);
    this.#seconds.push(second ?? 0);
    if (this.#values.length > POINTS) { this.#values.shift(); this.#seconds.shift(); }
    const top = Math.max(...this.#values, ...this.#seconds, 1e-9) * 1.1;
    const line = this.#path(this.#values, top);
    const start = WIDTH - this.#values.length + 1;
    this.#line.setAttribute("d", line);
    this.#area.setAttribute("d", `${line}L${WIDTH} ${HEIGHT}L${start} ${HEIGHT}Z`);
    if (second != null) this.#second.setAttribute("d", this.#path(this.#seconds, top));
  }

  #path(values, top) {
    const start = WIDTH - values.length + 1;
    return values.map((value, index) => `${index ? "L" : "M"}${start + index} ${(HEIGHT - 1 - (value / top) * (HEIGHT - 2)).toFixed(1)}`).join("");
  }
}
