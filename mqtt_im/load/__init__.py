"""The load generator: connections that cost next to nothing, and the loads that `mqtt-im bench` makes of them."""
