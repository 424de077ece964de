/** The server over HTTP: what the page must know of it, logins, files. Paths are relative, so it may live under a prefix. */

export class HttpFailed extends Error {
  constructor(status, code, message) {
    super(message ?? code);
    Object.assign(this, { status, code });
  }
}

/** What the server tells its pages: `mode`, `registration`, `websocket` (its path), `prefix`. Raises `HttpFailed`, `TypeError`. */
export async function serverFacts() {
  const response = await fetch("web/server.json", { cache: "no-store" });
  if (!response.ok) throw new HttpFailed(response.status, "unavailable");
  return response.json();
}

async function call(path, { token, ...options } = {}) {
  const headers = { ...(options.headers ?? {}) };
  if (token) headers.Authorization = `Bearer ${token}`;
  const response = await fetch(`api/v1/${path}`, { ...options, headers, cache: "no-store" });
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  throw new HttpFailed(response.status, problem.code ?? `http_${response.status}`, problem.detail ?? problem.title);
}

const post = (path, body, token) =>
  call(path, { method: "POST", token, headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

/** `{user, token, expires}`; `how` is `login` or `register`. */
export const login = async (how, user, password) => (await post(how, password === undefined ? { user } : { user, password })).json();

export const logout = (token) => call("logout", { method: "POST", token });

/** This browser is to be told of what comes while it is not connected. `subscription`: a `PushSubscription`. */
export const subscribePush = (device, subscription, token) => post("push.subscribe", { device, subscription: subscription.toJSON() }, token);

export const unsubscribePush = (device, token) => post("push.unsubscribe", { device }, token);

/** The bytes of a file. */
export const download = async (id, token) => (await call(`files/${encodeURIComponent(id)}`, { token })).blob();

/** A URL for a file that works without a header, for a few minutes. */
export async function ticket(id, token) {
  const { url } = await (await post("ticket", { for: `files/${id}` }, token)).json();
  const target = new URL(url, document.baseURI);
  if (target.origin !== location.origin) throw new HttpFailed(0, "bad_ticket");
  return target.href;
}

const FINAL = new Set([400, 401, 403, 404, 413, 415, 422, 507]);

/** Uploads a file; its id. `progress(share)` is called with 0 … 1. */
export function upload(blob, name, token, progress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", `api/v1/files?name=${encodeURIComponent(name)}`);
    request.setRequestHeader("Authorization", `Bearer ${token}`);
    request.setRequestHeader("Content-Type", blob.type.split(";")[0] || "application/octet-stream");
    request.responseType = "json";
    request.upload.onprogress = ({ loaded, total }) => total && progress(loaded / total);
    request.onerror = () => reject(new HttpFailed(0, "offline"));
    request.onload = () => {
      if (request.status === 201) return resolve(request.response.id);
      const error = new HttpFailed(request.status, request.response?.code ?? `http_${request.status}`, request.response?.detail);
      error.final = FINAL.has(request.status);
      return reject(error);
    };
    request.send(blob);
  });
}
