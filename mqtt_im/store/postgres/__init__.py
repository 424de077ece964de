"""The store on PostgreSQL: plain tables, changed in one transaction a batch, by any number of nodes (docs/cluster.md).

`opening` makes an `engine`, which the ledger's thread owns, and which owns the rest:

- A batch: `state` is what it sees and changes, over what it has `locked` and what it may `look` up; `parts` are members of a
  group that is locked, `inbox` is how a user's items are kept. `writes` is what it writes, `committing` the connection that
  commits it, `node` the fence that asks whether this node is still one, `addressing` who is told of it.
- Large groups, of which the log has one row: `large`, and `telling`, which is what a batch does with them.
- What leaves: `retention`.

The reader's thread has `reading`. Beside them: `follow` (the log, for search, files and webhooks), `lags`, `upkeep` (when
retention runs). Commands call `check` (on `references` and `check_large`), `whole` and `taking` (a copy, which has `written_out`
what large groups told), `kept`. Below all of it: `tables` (rows as entities), `wire` (statements on a connection), `schema`.
"""
