"""Floor 0: what crosses the wire, as pure functions and values. Knows nothing else of ours."""
