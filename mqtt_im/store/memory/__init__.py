"""The store's twin in memory: the same promises without disk, threads, caches or generations.

It is the oracle of the model tests, and stands in for the ledger in tests of whatever runs on top of the core:

    store = MemoryEngine()
    job = RequestJob(Who("alice", "phone", 0), Send(id="1", to="bob", body=Raw(b'"hi"')), lambda job: None)
    store.run([job], now=1_000)
    assert job.refusal is None

Everything is kept in plain dicts, and every question is answered by looking through them. Nothing survives the process.
"""
