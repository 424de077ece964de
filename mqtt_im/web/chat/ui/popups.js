/** Dialogs, menus and short notices: what lies over the page. */
import { h, iconButton } from "./dom.js";
import { t } from "./i18n.js";

/** Opens a modal dialog; returns `{element, close}`. Escape and the cross close it, and the focus goes back where it was. */
export function dialog(title, ...content) {
  const id = `title-${Math.random().toString(36).slice(2)}`;
  const element = h(
    "dialog",
    { "aria-labelledby": id },
    h("header", {}, h("h2", { id }, title), iconButton("close", t("Close"), { onclick: () => element.close() })),
    ...content,
  );
  element.addEventListener("close", () => element.remove());
  element.addEventListener("click", (event) => event.target === element && element.close());
  document.body.append(element);
  element.showModal();
  return { element, close: () => element.close() };
}

/** A dialog around a form. `submit(form)` may raise; what it raised is shown. */
export function form(title, label, fields, submit, submitProps = {}) {
  const problem = h("p", { class: "problem", role: "alert" });
  const button = h("button", { class: "primary", type: "submit", ...submitProps }, label);
  const element = h("form", { method: "dialog", novalidate: true }, fields, problem, h("footer", {}, button));
  const shown = dialog(title, element);
  element.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (button.disabled) return;
    button.disabled = true;
    problem.textContent = "";
    try {
      await submit(element);
      shown.close();
    } catch (error) {
      problem.textContent = error.message;
    } finally {
      button.disabled = false;
    }
  });
  element.querySelector("input, textarea, select")?.focus();
  return shown;
}

/** A labelled field of a form. */
export const field = (label, input, hint) =>
  h("label", { class: "field" }, h("span", {}, label), input, hint && h("small", {}, hint));

/** Asks before something that can't be undone; whether the user said yes. */
export function confirm(text, yes) {
  return new Promise((resolve) => {
    let answer = false;
    const say = h("button", { class: "primary danger", type: "button", onclick: () => ((answer = true), shown.close()) }, yes);
    const no = h("button", { type: "button", onclick: () => shown.close() }, t("Cancel"));
    const shown = dialog(yes, h("p", {}, text), h("footer", {}, no, say));
    shown.element.addEventListener("close", () => resolve(answer));
    no.focus();
  });
}

let closeMenu = () => {};

/**
 * Opens a menu at `anchor`: `items` are `{label, action, danger}` or nothing; `below` is a node that stands under them, `kind` a class.
 * Arrow keys move, Escape closes.
 */
export function menu(anchor, items, { below = null, kind = "" } = {}) {
  const isAgain = anchor.getAttribute("aria-expanded") === "true";
  closeMenu();
  if (isAgain) return;
  const buttons = items.filter(Boolean).map(({ label, action, danger, ...props }) =>
    h("button", { type: "button", role: "menuitem", tabindex: -1, class: danger && "danger", ...props, onclick: () => (close(), action()) }, label));
  const element = h("div", { class: `menu ${kind}` }, h("div", { class: "items", role: "menu", "aria-label": anchor.getAttribute("aria-label") }, buttons), below);
  const outside = (event) => !element.contains(event.target) && !anchor.contains(event.target) && close(false);
  const close = (focus = true) => {
    document.removeEventListener("pointerdown", outside, true);
    anchor.setAttribute("aria-expanded", "false");
    element.remove();
    closeMenu = () => {};
    if (focus && anchor.isConnected) anchor.focus({ preventScroll: true });
  };
  element.addEventListener("keydown", (event) => {
    const all = [...element.querySelectorAll("button, input")];
    const at = all.indexOf(document.activeElement);
    const step = { ArrowDown: 1, ArrowUp: -1, ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.key === "Escape" || event.key === "Tab") close();
    else if (step && document.activeElement.tagName !== "INPUT") all[(at + step + all.length) % all.length].focus();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  document.addEventListener("pointerdown", outside, true);
  anchor.setAttribute("aria-haspopup", "menu");
  anchor.setAttribute("aria-expanded", "true");
  (anchor.closest("dialog, nav, main") ?? document.body).append(element); // a modal dialog lies over everything outside it
  closeMenu = close;
  const box = anchor.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = element;
  const left = Math.max(8, Math.min(box.left, innerWidth - width - 8));
  const under = box.bottom + 4;
  element.style.left = `${left}px`;
  element.style.top = `${under + height < innerHeight - 8 ? under : Math.max(8, box.top - height - 4)}px`;
  element.querySelector("button, input")?.focus({ preventScroll: true });
}

let noticeTimer;

/** Says something for a few seconds. */
export function notice(text) {
  const place = document.getElementById("notice");
  place.textContent = text;
  clearTimeout(noticeTimer);
  noticeTimer = setTimeout(() => (place.textContent = ""), 6_000);
}
