/**
 * One MQTT connection over WebSocket, by mqtt.js. A line never comes back: who needs another makes another, so no queue but
 * the outbox ever repeats anything.
 */
import mqtt from "../vendor/mqtt.esm.js";

const utf8 = new TextDecoder();

/**
 * Connects. `on` has `up()`, `packet(topic, payload)` (a parsed one), `down(reason)` with `refused` for a wrong name or
 * password, else what is known; after `down` nothing more is called.
 */
export function openLine({ url, user, device, password, keepalive = 60 }, on) {
  const client = mqtt.connect(url, {
    clientId: device,
    username: user,
    password,
    protocolVersion: 4,
    clean: true,
    keepalive,
    connectTimeout: 15_000,
    reconnectPeriod: 0,
    resubscribe: false,
    queueQoSZero: false,
    timerVariant: "native",
  });
  let isDown = false;
  let heard = Date.now();
  const down = (reason) => {
    if (isDown) return;
    isDown = true;
    client.end(true);
    on.down(reason);
  };
  client.on("connect", () => !isDown && on.up());
  client.on("packetreceive", () => (heard = Date.now()));
  client.on("message", (topic, bytes) => {
    if (isDown) return;
    let packet;
    try {
      packet = JSON.parse(utf8.decode(bytes));
    } catch {
      return; // nothing of the server's
    }
    on.packet(topic, packet);
  });
  client.on("error", (error) => down(error.code === 4 || error.code === 5 ? "refused" : "error"));
  client.on("close", () => down("closed"));
  client.on("offline", () => down("closed"));
  return {
    /** When the last byte came, in ms since 1970. */
    get heard() {
      return heard;
    },
    subscribe(filters) {
      if (!isDown && filters.length) client.subscribe(filters, { qos: 1 }, () => {});
    },
    unsubscribe(filters) {
      if (!isDown && filters.length) client.unsubscribe(filters, () => {});
    },
    /** Publishes a request; `acknowledged` is called at its PUBACK. */
    publish(topic, request, qos = 1, acknowledged = () => {}) {
      if (!isDown) client.publish(topic, JSON.stringify(request), { qos }, (error) => !error && acknowledged());
    },
    ping() {
      if (!isDown) client.sendPing();
    },
    close: () => down("closed"),
  };
}
