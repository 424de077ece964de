"""The store on SQLite: a log, and projections of it that are written lazily.

`opening` makes an `engine`, which the ledger's thread owns, and which owns the rest:

- A batch: `arriving` (what it needs comes to memory), `batch` (what it has gathered), `taking_back` (items that it replaces).
- What the log says: `state/`, over `tables/`.
- The projections' file: `projections`; written by `flusher`, with `checkpoints` and `committing` on threads of their own; made
  anew by `rebuild` at a start and by `mending` beside the traffic. `replay` is the loop that takes a log, `loading` the state
  that takes it where nobody reads yet.
- What leaves: `retention/`; `erasure` empties the log's write-ahead file after recalls.

The reader's thread has `reading`, whose `view` is one moment; `gate` stands between the two threads. Beside them, on files of
their own: `follow` (the log, for search, files and webhooks), `lags`, `upkeep` (when retention runs). Commands call `check` (on
`checking/`), `backup`, `whole`, `kept`.
"""
