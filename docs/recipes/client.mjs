// A device on MQTT.js, MQTT 5: node client.mjs USER DEVICE PEER. From the environment: IM_HOST, IM_PORT, IM_PASSWORD,
// or IM_URL, such as wss://chat.example/mqtt for MQTT over WebSocket.
// In MQTT 5 the PUBACK of a request says what became of it, so there is nothing else to wait for.

import { randomUUID } from "node:crypto";
import { appendFileSync, existsSync, readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import mqtt from "mqtt";

const [user, device, peer] = process.argv.slice(2);
const up = `im/v1/${user}/${device}/up`;
const inbox = `${user}-${device}.jsonl`; // what has come, a line each
const kept = existsSync(inbox) ? readFileSync(inbox, "utf8").trim().split("\n").filter(Boolean) : [];
let seen = kept.length ? JSON.parse(kept.at(-1)).pos : 0;

const url = process.env.IM_URL ?? `mqtt://${process.env.IM_HOST ?? "127.0.0.1"}:${process.env.IM_PORT ?? 1883}`;
const client = mqtt.connect(url, {
  clientId: device,
  username: user,
  password: process.env.IM_PASSWORD,
  protocolVersion: 5,
  clean: false,
  properties: { sessionExpiryInterval: 30 * 24 * 3600 },
  reconnectPeriod: 1000, // it comes back by itself, and repeats what has no PUBACK
});
client.on("connect", (connack) => connack.sessionPresent || client.subscribe(`im/v1/${user}/#`, { qos: 1 }));
client.on("error", (error) => console.error(`refused: ${error.message}`));

// MQTT.js sends the PUBACK when this returns.
client.on("message", (topic, payload) => {
  const item = JSON.parse(payload);
  if (item.op === "welcome" || !(item.pos > seen)) return; // a repeat, or no item
  appendFileSync(inbox, `${JSON.stringify(item)}\n`, { flush: true });
  seen = item.pos;
  if (item.op === "msg" && "body" in item) console.log(`${item.from}: ${item.body}`);
});

const RETRY = new Set([0x80, 0x97]); // unavailable, too fast: once more, with the same id

async function send(body) {
  const request = JSON.stringify({ op: "send", id: randomUUID(), to: peer, body });
  for (;;) {
    try {
      return await client.publishAsync(up, request, { qos: 1 });
    } catch (error) {
      if (!RETRY.has(error.code)) return console.error(`not sent: ${error.message}`);
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  }
}

for await (const line of createInterface({ input: process.stdin })) await send(line);
await client.endAsync();
