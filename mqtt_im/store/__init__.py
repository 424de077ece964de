"""Floor 2: what every store is (interface, jobs, queries), the ledger with its threads, and the stores behind it."""
