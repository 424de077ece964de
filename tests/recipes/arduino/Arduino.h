// As much of Arduino's core as the recipe needs, on a POSIX machine: the serial port is stdin and stdout.
#pragma once
#include <poll.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <string>

typedef uint8_t byte;
typedef bool boolean;

class String : public std::string {
 public:
  String(const char *text = "") : std::string(text) {}
  String(const std::string &text) : std::string(text) {}
  explicit String(unsigned long value) : std::string(std::to_string(value)) {}
  int indexOf(const String &text) const { size_t at = find(text); return at == npos ? -1 : (int)at; }
  String substring(unsigned int from, unsigned int to) const { return String(substr(from, to - from)); }
  void trim() {
    while (!empty() && isspace((unsigned char)back())) pop_back();
    while (!empty() && isspace((unsigned char)front())) erase(begin());
  }
};
inline String operator+(const String &left, const String &right) { return String((const std::string &)left + (const std::string &)right); }
inline String operator+(const String &left, const char *right) { return String((const std::string &)left + right); }
inline String operator+(const char *left, const String &right) { return String(left + (const std::string &)right); }

inline unsigned long millis() {
  using namespace std::chrono;
  return duration_cast<milliseconds>(steady_clock::now().time_since_epoch()).count();
}

struct SerialPort {
  std::string buffer;
  bool ended = false;
  void begin(unsigned long) {}
  int available() {
    pollfd ready{0, POLLIN, 0};
    if (buffer.find('\n') == std::string::npos && !ended && poll(&ready, 1, 0) > 0) {
      char data[4096];
      ssize_t count = read(0, data, sizeof data);
      if (count > 0) buffer.append(data, count);
      else ended = true;
    }
    return buffer.find('\n') == std::string::npos ? 0 : (int)buffer.size();
  }
  String readStringUntil(char end) {
    size_t at = buffer.find(end);
    String line(buffer.substr(0, at));
    buffer.erase(0, at + 1);
    return line;
  }
  void println(const String &text) { std::cout << text << std::endl; }
};
inline SerialPort Serial;

void setup();
void loop();
