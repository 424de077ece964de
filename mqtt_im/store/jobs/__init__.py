"""Jobs: what the event loop asks of the ledger's thread and of the reader's.

A job is handed in with `Ledger.submit` and comes back to the loop by its `done`; those of one user in the order in which they
were handed in. In between the ledger calls `prepare` before the commit, where a job may append records, and `finish` after it,
where it may read; `refusal` is set where it was refused or the commit failed. A job that only reads (`reads.py`) is done by the
reader's thread, after what its user had handed in before.
"""
