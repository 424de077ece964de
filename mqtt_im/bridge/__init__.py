"""Floor 3: joins transport and store: uplink in, downlink out."""
