// A small plot of the last minutes: one filled line, and a second one where two belong together.
import { svg } from "./dom.js";

const POINTS = 180;
/** So few are drawn over the whole width; what comes after them makes it denser. */
const FIRST = 30;
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
    const start = this.#x(0, this.#values.length);
    this.#line.setAttribute("d", line);
    this.#area.setAttribute("d", `${line}L${WIDTH} ${HEIGHT}L${start} ${HEIGHT}Z`);
    if (second != null) this.#second.setAttribute("d", this.#path(this.#seconds, top));
  }

  #x(index, length) {
    return (WIDTH - ((length - 1 - index) * WIDTH) / (Math.max(length, FIRST) - 1)).toFixed(1);
  }

  #path(values, top) {
    return values.map((value, index) => `${index ? "L" : "M"}${this.#x(index, values.length)} ${(HEIGHT - 1 - (value / top) * (HEIGHT - 2)).toFixed(1)}`).join("");
  }
}
