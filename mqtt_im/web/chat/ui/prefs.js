/** What a user chooses for this browser: language, theme, notifications. No secrets: kept in localStorage. */

const KEY = "mqtt-im preferences";
const DEFAULTS = { language: "", theme: "auto", notify: false };

function read() {
  try {
    return { ...DEFAULTS, ...JSON.parse(localStorage.getItem(KEY) ?? "{}") };
  } catch {
    return { ...DEFAULTS };
  }
}

export const prefs = read();

// What is chosen in one tab holds in all: another one may be the one that tells.
addEventListener("storage", ({ key }) => {
  if (key !== KEY) return;
  Object.assign(prefs, read());
  showTheme();
});

export function setPref(name, value) {
  prefs[name] = value;
  localStorage.setItem(KEY, JSON.stringify(prefs));
}

export function showTheme() {
  document.documentElement.dataset.theme = prefs.theme;
}
