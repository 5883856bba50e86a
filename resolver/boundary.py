"""Where an error of our own stops.

Law: the one place in this room that catches what it does not know. Whatever breaks on a query's way, that query is
answered with a failure, the error is reported, and the server lives on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from policy.values import Query

type Fault = Callable[[BaseException, Query | None], None]  # the error; whose query broke, where that is known


@dataclass(frozen=True, slots=True)
class Boundary:
    """Runs work and, if that breaks, reports to `fault` (with what `whose` knows) and runs the rescue instead."""

    fault: Fault
    whose: Callable[[], Query | None]

    def run[*A, T](self, rescue: Callable[[], T], work: Callable[[*A], T], *args: *A) -> T:
        try:
            return work(*args)
        except Exception as error:  # noqa: BLE001 any error at all must end as a denial of this one query
            self.fault(error, self.whose())
            return rescue()
