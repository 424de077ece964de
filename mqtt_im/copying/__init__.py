"""Floor 4: a whole store moved from SQLite to PostgreSQL or back, while no server runs on either (`mqtt-im store copy`).

The target has all of it, or is as it was: in PostgreSQL everything is one transaction, tables included; in a folder it is made
beside and then put in place, and no server starts before that is over. Until then it was read again and compared with the
source, part by part. What follows from the rest, such as the search index, is made anew by the first server.
"""

from .moving import Copied, copy_store

__all__ = ["Copied", "copy_store"]
