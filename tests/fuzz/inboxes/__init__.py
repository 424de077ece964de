"""Loss, doubles and order: the bridge over a real store in one process, whose every step is drawn, and devices that judge.

What is real: the bridge, its deliveries and cursors, the ledger and the reader with a store on files. What is not: threads,
sockets and time. A step is a turn of the loop, a batch, a read, an answer that reaches the loop, some packets on a line, what a
device says or suffers, a commit that fails or seems to, a kill. While a commit waits for the disk, others go on.
"""

from .hunt import hunt

__all__ = ["hunt"]
