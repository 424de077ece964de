"""Floor 2: the log, its projections, and everything that must survive."""
