// PubSubClient's interface and manners, on a socket: it publishes at QoS 0, acknowledges QoS 1 packets when the callback has
// returned, and drops what is larger than its buffer. None of its source is in here.
#pragma once
#include "WiFi.h"

class PubSubClient {
  typedef void (*Callback)(char *, byte *, unsigned int);
  WiFiClient &network;
  std::string host, buffer;
  uint16_t port = 1883, keepalive = 15, packet_id = 0;
  size_t room = 256;
  Callback callback = nullptr;
  unsigned long pinged = 0;

  static std::string text(const char *value) {
    size_t length = strlen(value);
    return std::string{(char)(length >> 8), (char)length} + value;
  }
  bool packet(char first, const std::string &body) {
    std::string data(1, first);
    size_t left = body.size();
    do {
      data += (char)(left % 128 | (left > 127 ? 128 : 0));
      left /= 128;
    } while (left);
    return network.write_all(data + body);
  }
  // The next whole packet: its first byte, or 0 where none is there yet.
  int next(std::string &body, int wait_ms) {
    for (;;) {
      size_t length = 0, at = 1, shift = 0;
      bool whole = false;
      for (; at < buffer.size() && at < 5; at++, shift += 7) {
        length |= (size_t)(buffer[at] & 127) << shift;
        if (!(buffer[at] & 128)) { whole = true; at++; break; }
      }
      if (whole && buffer.size() >= at + length) {
        int first = (unsigned char)buffer[0];
        body = buffer.substr(at, length);
        buffer.erase(0, at + length);
        if (at + length <= room) return first;
        continue;
      }
      pollfd ready{network.handle, POLLIN, 0};
      if (network.handle < 0 || poll(&ready, 1, wait_ms) <= 0) return 0;
      char data[4096];
      ssize_t count = read(network.handle, data, sizeof data);
      if (count <= 0) return network.stop(), 0;
      buffer.append(data, count);
    }
  }

 public:
  explicit PubSubClient(WiFiClient &network) : network(network) {}
  PubSubClient &setServer(const char *name, uint16_t number) { host = name; port = number; return *this; }
  PubSubClient &setCallback(Callback value) { callback = value; return *this; }
  PubSubClient &setKeepAlive(uint16_t seconds) { keepalive = seconds; return *this; }
  bool setBufferSize(uint16_t size) { room = size; return true; }
  bool connected() { return network.handle >= 0; }
  bool connect(const char *id, const char *user, const char *password, const char *, uint8_t, bool, const char *, bool clean) {
    buffer.clear();
    if (!network.connect(host.c_str(), port)) return false;
    char flags = (char)((clean ? 2 : 0) | (user ? 0x80 : 0) | (password ? 0x40 : 0));
    std::string body = text("MQTT") + std::string{4, flags, (char)(keepalive >> 8), (char)keepalive} + text(id);
    if (user) body += text(user);
    if (password) body += text(password);
    std::string answer;
    if (packet(0x10, body) && next(answer, 15000) == 0x20 && answer[1] == 0) return true;
    network.stop();
    return false;
  }
  bool subscribe(const char *filter, uint8_t qos) {
    packet_id = packet_id % 65535 + 1;
    return packet((char)0x82, std::string{(char)(packet_id >> 8), (char)packet_id} + text(filter) + (char)qos);
  }
  bool publish(const char *topic, const char *payload) { return packet(0x30, text(topic) + payload); }
  bool loop() {
    std::string body;
    int first = next(body, 10);
    if (first >> 4 == 3) {
      size_t length = (unsigned char)body[0] << 8 | (unsigned char)body[1], at = 2 + length;
      std::string topic = body.substr(2, length), id = first & 6 ? body.substr(at, 2) : "", payload = body.substr(at + id.size());
      if (callback) callback(&topic[0], (byte *)&payload[0], payload.size());
      if (!id.empty()) packet(0x40, id);
    }
    if (millis() - pinged > keepalive * 1000ul) {
      pinged = millis();
      packet((char)0xC0, "");
    }
    return connected();
  }
};
