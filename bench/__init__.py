"""Speed, measured: this server beside mosquitto and stock amqtt, in one invocation.

The servers run on one core, the load generator on another. The figure that noise spares is the server's CPU time per
message; throughput and latency stand beside it, with how busy the generator was (near 100 % it was the limit).

`python -m bench` runs everything and prints one table; `python -m bench SCENARIO --help` runs one.
"""
