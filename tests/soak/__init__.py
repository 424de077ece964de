"""A server under churn for minutes: its memory, file descriptors and tasks must not grow."""
