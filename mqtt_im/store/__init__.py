"""Floor 2: what every store is (interface, jobs, queries), the writer's thread (ledger), and the stores behind it."""
