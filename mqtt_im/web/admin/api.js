// The administration's calls; what goes wrong is told in words. The token is kept for this tab alone, and is gone when it is closed.

import { say } from "./i18n.js";

const KEY = "mqtt-im-admin-token";

export class Problem extends Error {
  constructor(status, body) {
    super(body?.detail || (status ? say("failed_with", status) : say("failed")));
    this.status = status;
    this.code = body?.code || "";
  }
}

export const token = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  clear: () => sessionStorage.removeItem(KEY),
};

async function fetched(path, options = {}) {
  const headers = { Authorization: `Bearer ${token.get()}` };
  const response = await fetch(`/api/v1/admin/${path}`, { ...options, cache: "no-store", headers }).catch((error) => {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, null);
  });
  if (!response.ok) throw new Problem(response.status, await response.json().catch(() => null));
  return response;
}

export async function get(path) {
  return (await fetched(path)).json();
}

export async function act(method, path) {
  await fetched(path, { method });
}

/** The figures, as they come; ends where the stream does. EventSource can send no token, so the stream is read by hand. */
export async function* figures(signal) {
  const response = await fetched("stats/stream", { signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (waiting + value).split("\n\n");
    waiting = blocks.pop();
    for (const block of blocks) {
      const data = block.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5)).join("\n");
      if (data) yield JSON.parse(data);
    }
  }
}
