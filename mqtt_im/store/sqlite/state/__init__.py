"""What the log says now: generations in memory where it is new, over them and the projections whatever is looked up."""
