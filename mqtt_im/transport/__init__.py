"""Floor 2: carries payloads between devices and the bridge, and knows nothing of messaging."""
