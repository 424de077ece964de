/** The two languages. English texts are their own keys; `{name}` stands for what is put in. */
import { prefs } from "./prefs.js";
import { zh } from "./zh.js";

const languages = { en: {}, zh };

/** The language in use: the one chosen, else the browser's where we have it. */
export const language = () => prefs.language || (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");

export function t(text, values = {}) {
  const found = languages[language()][text] ?? text;
  return found.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

/** Formats of dates, made once for each language: making them is slow. */
const formats = new Map();

function format(name, options) {
  const key = `${language()} ${name}`;
  if (!formats.has(key)) formats.set(key, new Intl.DateTimeFormat(language() === "zh" ? "zh-CN" : navigator.language, options));
  return formats.get(key);
}

const dayOf = (ts) => new Date(ts).setHours(0, 0, 0, 0);
const DAY_MS = 86_400_000;

export const clock = (ts) => format("clock", { hour: "2-digit", minute: "2-digit" }).format(ts);
export const full = (ts) => format("full", { dateStyle: "full", timeStyle: "medium" }).format(ts);

export function day(ts) {
  const ago = Math.round((dayOf(Date.now()) - dayOf(ts)) / DAY_MS);
  if (ago === 0) return t("Today");
  if (ago === 1) return t("Yesterday");
  return format("day", { weekday: "short", day: "numeric", month: "long", year: ago > 300 ? "numeric" : undefined }).format(ts);
}

/** As short as the list of conversations needs it. */
export function short(ts) {
  const ago = Math.round((dayOf(Date.now()) - dayOf(ts)) / DAY_MS);
  if (ago === 0) return clock(ts);
  if (ago < 7) return format("weekday", { weekday: "short" }).format(ts);
  return format("date", { day: "numeric", month: "numeric", year: "2-digit" }).format(ts);
}

export const sameDay = (a, b) => dayOf(a) === dayOf(b);

/** What went wrong, for people. */
export function problem(error) {
  const texts = {
    offline: t("You are offline. Try again when the line is back."),
    not_found: t("There is nobody and nothing of that name."),
    blocked: t("This user does not take messages from you."),
    not_member: t("You are not in that group."),
    forbidden: t("You may not do that."),
    too_large: t("This is too large."),
    quota: t("You have used up what you may keep."),
    conflict: t("That name is taken."),
    rate_limited: t("Too many at once. Wait a moment."),
    unsupported_type: t("Files of this type are not taken."),
    unauthorized: t("Wrong name or password."),
  };
  return texts[error.code] ?? error.message ?? String(error);
}
