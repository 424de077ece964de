"""MQTT sessions and plain topics, without sockets: what outlives a connection, and who gets what.

A session speaks to its client through `session.Receiver` alone, so all of this runs in tests without a network.
"""
