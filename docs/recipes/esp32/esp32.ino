// A device on an ESP32, with PubSubClient (MQTT 3.1.1). Each line that comes over the serial port is sent to PEER; what comes is
// printed there. PubSubClient publishes at QoS 0 alone, so a message is repeated until the server says `sent`: its id makes
// that harmless. Received packets are QoS 1; PubSubClient acknowledges each when the callback returns.

#include <PubSubClient.h>
#include <Preferences.h>
#include <WiFi.h>

#include "settings.h"  // WIFI_NAME, WIFI_PASSWORD, IM_HOST, IM_PORT, IM_USER, IM_PASSWORD, IM_DEVICE, IM_PEER

const unsigned long REPEAT_MS = 5000;

WiFiClient network;
PubSubClient mqtt(network);
Preferences kept;            // in flash: survives a power cut
unsigned long boot, number;  // ids are made of both, so no two messages ever share one
unsigned long seen;          // the newest pos that was printed
String waitingId, waitingRequest;
unsigned long sentAt, triedAt;

// The text behind "name": in an item; the server puts its fields before any body, and within a string a quote is escaped.
String field(const String &item, const char *name) {
  String key = String("\"") + name + "\":";
  int at = item.indexOf(key);
  if (at < 0) return "";
  at += key.length();
  if (item[at] != '"') {
    int end = at;
    while (end < (int)item.length() && item[end] != ',' && item[end] != '}') end++;
    return item.substring(at, end);
  }
  int end = at + 1;
  while (end < (int)item.length() && item[end] != '"') end += item[end] == '\\' ? 2 : 1;
  return item.substring(at + 1, end);
}

String escaped(const String &text) {
  String out;
  for (unsigned int at = 0; at < text.length(); at++) {
    if (text[at] == '"' || text[at] == '\\') out += '\\';
    if (text[at] >= 0x20 || text[at] < 0) out += text[at];
  }
  return out;
}

void received(char *topic, byte *payload, unsigned int length) {
  String item;
  item.reserve(length);
  for (unsigned int at = 0; at < length; at++) item += (char)payload[at];
  String op = field(item, "op");
  if (waitingId.length() && field(item, "id") == waitingId && (op == "sent" || op == "error")) {
    if (op == "error") Serial.println("not sent: " + field(item, "message"));
    waitingId = "";
  }
  unsigned long pos = strtoul(field(item, "pos").c_str(), nullptr, 10);
  if (pos <= seen || op == "welcome") return;  // a repeat, or no item
  if (op == "msg" && field(item, "body").length()) Serial.println(field(item, "from") + ": " + field(item, "body"));
  seen = pos;
  kept.putULong("seen", seen);
}

void say(const String &text) {
  waitingId = String(IM_DEVICE) + "-" + String(boot) + "-" + String(++number);
  waitingRequest = "{\"op\":\"send\",\"id\":\"" + waitingId + "\",\"to\":\"" IM_PEER "\",\"body\":\"" + escaped(text) + "\"}";
  sentAt = millis() - REPEAT_MS;
}

void setup() {
  Serial.begin(115200);
  kept.begin("mqtt-im", false);
  boot = kept.getULong("boot", 0) + 1;
  kept.putULong("boot", boot);
  seen = kept.getULong("seen", 0);
  WiFi.begin(WIFI_NAME, WIFI_PASSWORD);
  mqtt.setServer(IM_HOST, IM_PORT);
  mqtt.setCallback(received);
  mqtt.setBufferSize(4096);  // a message larger than this is dropped by PubSubClient, unseen
  mqtt.setKeepAlive(60);
}

void loop() {
  if (WiFi.status() != WL_CONNECTED) return;
  if (!mqtt.connected()) {
    if (triedAt && millis() - triedAt < 1000) return;
    triedAt = millis();
    // The session is kept (clean session false): what comes while it is away comes later, first thing.
    if (!mqtt.connect(IM_DEVICE, IM_USER, IM_PASSWORD, nullptr, 0, false, nullptr, false)) return;
    mqtt.subscribe("im/v1/" IM_USER "/#", 1);
  }
  mqtt.loop();
  if (!waitingId.length() && Serial.available()) {
    String line = Serial.readStringUntil('\n');
    line.trim();
    if (line.length()) say(line);
  }
  if (waitingId.length() && millis() - sentAt >= REPEAT_MS) {
    sentAt = millis();
    mqtt.publish("im/v1/" IM_USER "/" IM_DEVICE "/up", waitingRequest.c_str());
  }
}
