"""Floor 1: what messaging means, without I/O. Time comes in as an argument, effects go out as values."""
