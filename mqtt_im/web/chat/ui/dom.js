/** Elements without HTML: text is always text. */

/**
 * An element. `props`: `on…` are listeners, `data` a map of data-attributes, `class` and all others attributes; those that are
 * false, null or undefined are left out. Children: nodes, texts, and nothing.
 */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "data") for (const [key, each] of Object.entries(value)) element.dataset[key] = each;
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false && child !== ""));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";
const PATHS = {
  menu: "M4 7h16M4 12h16M4 17h16",
  more: "M12 4.5a.7.7 0 1 0 .01 0M12 11.3a.7.7 0 1 0 .01 0M12 18.1a.7.7 0 1 0 .01 0",
  back: "M15 5l-7 7 7 7",
  plus: "M12 5v14M5 12h14",
  group: "M9 11a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7zM2.5 20c0-3.6 2.9-6 6.5-6s6.5 2.4 6.5 6M16 4.5a3.5 3.5 0 0 1 0 6.5M18 14.5c2.2.7 3.5 2.7 3.5 5.5",
  send: "M4 12l16-8-6 16-3-6.5z",
  attach: "M20 11.5l-8.5 8.5a5 5 0 0 1-7-7l9-9a3.3 3.3 0 0 1 4.7 4.7l-9 9a1.7 1.7 0 0 1-2.4-2.4l8-8",
  search: "M11 18a7 7 0 1 0 0-14 7 7 0 0 0 0 14zM16 16l4.5 4.5",
  close: "M6 6l12 12M18 6L6 18",
  reply: "M9 7L4 12l5 5M4 12h10a6 6 0 0 1 6 6",
  edit: "M4 20l1-4L16 5l3 3L8 19zM14 7l3 3",
  smile: "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18zM8.5 14.5c1 1.3 2.2 2 3.5 2s2.5-.7 3.5-2M9 9.5v.01M15 9.5v.01",
  down: "M6 10l6 6 6-6",
  logout: "M14 4H6v16h8M10 12h11M17 8l4 4-4 4",
  file: "M6 3h8l4 4v14H6zM14 3v4h4",
  person: "M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM4 21c0-4 3.5-7 8-7s8 3 8 7",
  play: "M8 5l11 7-11 7z",
  clock: "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18zM12 7v5l3 2",
  tick: "M5 13l4 4L19 7",
  ticks: "M2 13l4 4L16 7M10.5 15.5L12 17 22 7",
  failed: "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18zM12 8v5M12 16.5v.01",
  muted: "M4 4l16 16M18 16H5l2-3V9c0-.7.1-1.3.4-2M9.5 4.6A5 5 0 0 1 17 9v4M10 19h4",
};

/** A drawing that says nothing to a screen reader. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.classList.add("icon");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}

/** A button with a drawing, named by `label`. */
export const iconButton = (name, label, props = {}) =>
  h("button", { type: "button", "aria-label": label, title: label, ...props, class: `icon-button ${props.class ?? ""}` }, icon(name));

/** The round sign of a user or group: its initial, in a colour of its own. */
export function avatar(name, isGroup = false) {
  let hash = 7;
  for (const char of name) hash = (hash * 31 + char.codePointAt(0)) % 12;
  const initial = Array.from(name.replace(/^#/, ""))[0] ?? "?";
  return h("span", { class: `avatar hue-${hash}${isGroup ? " of-group" : ""}`, "aria-hidden": "true" }, initial.toUpperCase());
}
