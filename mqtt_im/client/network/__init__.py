"""Bytes: addresses, how one of them is reached, and paho-mqtt on what was reached."""
