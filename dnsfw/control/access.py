"""Who may ask what of a guard.

Law: pure, and refuses by shape: what is not known to be allowed is refused in the last statement. An identity that is
missing equals nothing, another missing one least of all.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import Final

from dnsfw.control.messages import Bindings, Flows, Health, Metrics, Question, Refused, Report, Status

SHORTEST_TOKEN: Final = 16  # characters; guesses are over a local socket, a few thousand a second
_ROOT: Final = 0
_UNMAPPED: Final = 65534  # every user that our user namespace has no name for: nobody in particular
_LOOKING: Final = (Status, Health, Flows, Bindings, Metrics, Report)


@dataclass(frozen=True, slots=True)
class Access:
    """`starter` is the uid of who started the guard; `token` is what they gave it, "" if nothing.

    Programs under the guard often run as its starter (a CI job, `up`): being that user shows what there is to see, and
    changes nothing. The token does, which only who started the guard has.
    """

    starter: int
    token: str = field(default="", repr=False)

    def refusal(self, question: Question, peer: int, token: str) -> Refused | None:
        """None if the peer with that uid may have its answer."""
        if peer == _ROOT:
            return None
        if peer < 0 or peer == _UNMAPPED or peer != self.starter:
            return Refused("This guard is not yours.", "Ask as root, or as the user who started it.")
        if isinstance(question, _LOOKING) or self._proves(token):
            return None
        return Refused(
            "Only root, or who has the guard's token, may do that.",
            "Call it through sudo, or give the token that the guard was started with (--token-file).",
        )

    def _proves(self, token: str) -> bool:
        """Compared in constant time. No token, or too short a one, is never right."""
        enough = min(len(self.token), len(token)) >= SHORTEST_TOKEN
        return enough and hmac.compare_digest(self.token.encode(), token.encode())
