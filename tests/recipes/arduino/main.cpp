// What an Arduino does with a sketch, until the serial port is closed.
#include "Arduino.h"

int main() {
  setup();
  while (!Serial.ended) loop();
}
