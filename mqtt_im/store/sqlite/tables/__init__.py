"""What is on disk: the two files, their tables, and the statements on them."""
