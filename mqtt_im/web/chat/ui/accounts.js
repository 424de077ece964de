/**
 * Who is logged in in this browser, in IndexedDB: `user`, `token`, `device`, `used`. Each tab has one user, of whom
 * sessionStorage knows the name; a new tab takes the one who came last.
 */

const NAME = "mqtt-im";
const TAB = "mqtt-im user";

async function open() {
  const request = indexedDB.open(NAME, 1);
  request.onupgradeneeded = () => request.result.createObjectStore("accounts", { keyPath: "user" });
  return settled(request);
}

const settled = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

async function use(mode, work) {
  const db = await open();
  try {
    return await settled(work(db.transaction("accounts", mode).objectStore("accounts")));
  } finally {
    db.close();
  }
}

/** The name of a user's own database. */
export const databaseOf = (user) => `mqtt-im ${user}`;

/** The account of this tab, or null. */
export async function current() {
  const accounts = await use("readonly", (store) => store.getAll());
  const mine = sessionStorage.getItem(TAB);
  if (mine !== null) return accounts.find((account) => account.user === mine) ?? null;
  accounts.sort((a, b) => b.used - a.used);
  if (accounts[0]) sessionStorage.setItem(TAB, accounts[0].user);
  return accounts[0] ?? null;
}

export const find = (user) => use("readonly", (store) => store.get(user));

/** Keeps an account; it is this tab's from now on. */
export async function keep(account) {
  await use("readwrite", (store) => store.put({ ...account, used: Date.now() }));
  sessionStorage.setItem(TAB, account.user);
}

export async function forget(user) {
  sessionStorage.removeItem(TAB);
  await use("readwrite", (store) => store.delete(user));
}
