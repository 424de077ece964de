"""The HTTP listener: what its requests, streams and uploads cost, beside MQTT and beside what the machine can do."""
