"""Floor 2: who may log in: names, passwords and tokens, in a file of their own."""
