"""See the package."""

from __future__ import annotations

import os
import sys

from bench.alone import end_with_parent
from bench.attacks import ATTACKS, Ports

end_with_parent()
os.nice(10)  # what is measured beside it comes first
ATTACKS[sys.argv[1]](Ports(*map(int, sys.argv[2:])))
