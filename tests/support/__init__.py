"""Tools of the tests: an MQTT client that does exactly what it is told, and a proxy that misbehaves."""
