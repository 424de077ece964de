#pragma once
#include <netdb.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "Arduino.h"

enum { WL_CONNECTED = 3 };

struct WiFiDriver {
  void begin(const char *, const char *) {}
  int status() { return WL_CONNECTED; }
};
inline WiFiDriver WiFi;

class WiFiClient {
 public:
  int handle = -1;
  bool connect(const char *host, uint16_t port) {
    stop();
    addrinfo hints{}, *found = nullptr;
    hints.ai_socktype = SOCK_STREAM;
    if (getaddrinfo(host, std::to_string(port).c_str(), &hints, &found)) return false;
    handle = socket(found->ai_family, SOCK_STREAM, 0);
    bool ok = ::connect(handle, found->ai_addr, found->ai_addrlen) == 0;
    freeaddrinfo(found);
    if (!ok) stop();
    return ok;
  }
  void stop() {
    if (handle >= 0) close(handle);
    handle = -1;
  }
  bool write_all(const std::string &data) { return handle >= 0 && send(handle, data.data(), data.size(), MSG_NOSIGNAL) == (ssize_t)data.size(); }
};
