"""Our table in the kernel.

Law: owns the table `inet dnsfw`, and the hand-over rules where the kernel needs them, in the network namespace that is
current when it is entered and left. Touches nothing else. Each piece is removed for what it is, so removing it twice,
or after a SIGKILL, is harmless.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Final, Self

from firewall import ruleset
from firewall.frames import remove_frames
from firewall.handover import CHAINS
from firewall.iptables import Place, hand_over, take_back, tidy
from firewall.nft import Nft, NftError
from firewall.ruleset import TABLE, Plan

_WITH_QUEUE: Final = "table inet dnsfw_probe {\n chain probe {\n queue to 0\n }\n}\n"
_MANGLE: Final = ("ip", "ip6")  # families that iptables-nft has a mangle table in


class Table:
    """A context manager: the plan is in force inside.

    `queue_in_nft` None asks the kernel. Entering replaces what a dead holder left; it raises NftError, and then leaves
    nothing behind. Not `removed`, it stays until its network namespace goes, which takes it along in no time of ours.
    """

    def __init__(self, plan: Plan, *, queue_in_nft: bool | None = None, removed: bool = True) -> None:
        self._plan = plan
        self._queue_in_nft = queue_in_nft
        self._removed = removed
        self._nft: Nft | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            nft = stack.enter_context(Nft())
            with ExitStack() as removal:
                self._apply(nft, removal)
                applied = removal.pop_all()
            if self._removed:
                stack.push(applied)
            self._nft = nft
            self._stack = stack.pop_all()
        return self

    def _apply(self, nft: Nft, removal: ExitStack) -> None:
        in_nft = has_queue(nft) if self._queue_in_nft is None else self._queue_in_nft
        if not in_nft:  # before the table: between the two, packets would be lost
            made = {(family, chain) for family in _MANGLE for chain in CHAINS if not _has_chain(nft, family, chain)}
            removal.callback(_tidy, nft, made)
            removal.callback(take_back, self._plan.queue)
            made |= hand_over(self._plan)  # a chain that a dead holder made is ours to remove, too
        removal.callback(_delete, nft)
        nft.run(ruleset.render(self._plan, queue_in_nft=in_nft))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._nft = None
        self._stack.close()

    def set_generation(self, generation: int, former: int | None = None) -> None:
        """Judge again, from their next packet on, all flows that an earlier generation let through; connections of the
        `former` one go on until this is called without it. Atomic.

        Change the policy first: a verdict is in force when the queue's call returns, so none of the old policy comes
        after this. May be called from any network namespace. Raises NftError.
        """
        self._run(ruleset.renewal(generation, former))

    def steer(self, *, on: bool) -> None:
        """Redirect questions to the resolver, or let them go where they were sent: for audit mode without an engine.
        May be called from any network namespace. Raises NftError."""
        self._run(ruleset.steering(self._plan, on=on))

    def counters(self) -> dict[str, int]:
        """Packets by what became of them: see `ruleset`. May be called from any network namespace. Raises NftError."""
        return ruleset.counters(self._run(f"list counters table {TABLE}"))

    def _run(self, commands: str) -> str:
        if self._nft is None:
            raise NftError("the table is not in force")
        return self._nft.run(commands)


def remove(queue: int) -> None:
    """Take away what a killed holder left in this network namespace. Nothing there is fine. Raises NftError."""
    with Nft() as nft:
        _delete(nft)
        remove_frames(nft)
        if not has_queue(nft):
            _tidy(nft, take_back(queue))


def has_queue(nft: Nft) -> bool:
    """Does this kernel have nft's queue statement (CONFIG_NFT_QUEUE)?"""
    return nft.can(_WITH_QUEUE)


def _delete(nft: Nft) -> None:
    nft.run(f"table {TABLE}\ndelete table {TABLE}\n")  # the first, so that there is one to delete


def _has_chain(nft: Nft, family: str, chain: str) -> bool:
    try:
        nft.run(f"list chain {family} mangle {chain}")
    except NftError:
        return False
    return True


def _tidy(nft: Nft, places: Collection[Place]) -> None:
    """Remove chains and table that iptables-nft made for our rules; they stay where anything else is in them."""
    tidy(places)  # not nft: its delete takes a chain's rules along
    for family in {family for family, _ in places}:
        with suppress(NftError):  # not there
            if nft.run(f"list table {family} mangle") == f"table {family} mangle {{\n}}\n":
                nft.run(f"delete table {family} mangle")
