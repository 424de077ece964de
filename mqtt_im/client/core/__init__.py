"""The client without I/O: pure state machines. Time comes in as an argument (seconds, monotonic), effects go out as values."""
