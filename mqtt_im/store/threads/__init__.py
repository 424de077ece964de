"""The writer's thread and the reader's: what they take, in whose turn, and what they do while the store can't commit."""
