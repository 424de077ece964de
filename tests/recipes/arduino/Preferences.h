#pragma once
#include <map>

#include "Arduino.h"

class Preferences {
  std::map<std::string, unsigned long> values;

 public:
  bool begin(const char *, bool) { return true; }
  unsigned long getULong(const char *key, unsigned long otherwise) { return values.count(key) ? values[key] : otherwise; }
  size_t putULong(const char *key, unsigned long value) { values[key] = value; return 4; }
};
