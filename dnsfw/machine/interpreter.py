"""The interpreter, set for a process that packets and queries wait for.

Law: settings of CPython's and their reasons, nothing of ours. Called once everything is imported and built.
"""

from __future__ import annotations

import gc
import sys
from typing import Final

_SWITCH: Final = 0.0005  # seconds until another thread (the journal's) lets us go on; 5 ms by default
# Objects made and not freed until the young among them are looked through, and how many such looks until those that
# stayed are. What a question leaves behind (answers, bindings, records) stays for a while and has no cycles: looking
# through all of it every few thousand questions held each of them up by milliseconds.
_THRESHOLDS: Final = (5_000, 10, 10)


def answer_promptly() -> None:
    sys.setswitchinterval(_SWITCH)
    gc.freeze()  # code is no garbage: looking through it holds packets and queries up for 10 ms each time
    gc.set_threshold(*_THRESHOLDS)
