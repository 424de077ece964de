"""What the log says now: generations in memory where it is new, over them and the projections whatever is looked up.

A state is one object (`projected.ProjectedState`), of classes each over the one before, with a subject and a file each:

- `overlay`: the two generations, and records of the log. `generation` is what one of them holds.
- `entities`: users, conversations and their members, devices. `numbering` gives new ones their numbers.
- `contents`: items, messages, what became of them, who has not read them.
- `projected`: takes a record, finds ids, the order of conversations; freezes a generation, whose rows `bulks` makes.

The ledger's thread owns one (`sqlite.engine`). The reader has one of its own that looks at the same generations
(`sqlite.view.ReadState`), a rebuild and a check one that is filled from the log (`sqlite.loading.LoadingState`), retention one
that is the base (`sqlite.retention.base.BaseState`).
"""
