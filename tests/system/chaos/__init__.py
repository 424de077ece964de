"""The checker: a server killed again and again, a network that misbehaves, and afterwards an account of every message.

`world` holds what everybody shares, `device` plays one device of a user, whose stream `downlink` holds against the promises,
`workload` decides what it does, `run` starts the server, kills it, ends the noise and collects the truth, `checker` compares.
`trail` is what explains a fault. `mutations` breaks copies of the server and shows that the checker sees it.
"""
