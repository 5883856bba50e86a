"""Our table in the kernel.

Law: owns the table `inet dnsfw`, and the hand-over rules where the kernel needs them, in the network namespace that was
current when it was entered. Touches nothing else, and may be left twice.
"""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Literal, Self

from firewall.nft import Nft, NftError
from firewall.ruleset import TABLE, Plan, handover, render

_RESTORE = ("iptables-nft-restore", "ip6tables-nft-restore")
_PROBE = "table inet dnsfw_probe { chain probe { queue num 0; }; }; delete table inet dnsfw_probe;"


class Table:
    """A context manager: the plan is in force inside. Enter and leave in the same network namespace.

    Entering raises NftError and leaves nothing behind when any part of it can't be applied.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            nft = stack.enter_context(Nft())
            _take_over(nft, self._plan.queue)
            in_nft = has_queue(nft)
            if not in_nft:
                before = nft.run("list tables")
                stack.callback(_remove_empty_mangle, nft, before)
                stack.callback(_hand_over, self._plan, "-D")
                _hand_over(self._plan, "-I")
            stack.callback(nft.run, f"table {TABLE}; delete table {TABLE}")
            nft.run(render(self._plan, queue_in_nft=in_nft))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


def remove(queue: int) -> None:
    """Take away what a holder left that was killed. Nothing there: fine. Raises NftError."""
    with Nft() as nft:
        _take_over(nft, queue)
        nft.run(f"table {TABLE}; delete table {TABLE}")
        _remove_empty_mangle(nft, before="")


def _take_over(nft: Nft, queue: int) -> None:
    """The hand-over rules of a dead holder, as often as they are there; its table is replaced as a whole later."""
    if f"table {TABLE}\n" not in nft.run("list tables"):
        return
    for audit in (False, True):
        left = Plan(resolver_port=0, queue=queue, audit=audit)
        while not any([_restore(program, handover(left, verb="-D")) for program in _RESTORE]):
            continue


def has_queue(nft: Nft) -> bool:
    """Does this kernel have nft's queue statement (CONFIG_NFT_QUEUE)? Tried in a transaction that leaves nothing."""
    try:
        nft.run(_PROBE)
    except NftError:
        return False
    return True


def _hand_over(plan: Plan, verb: Literal["-I", "-D"]) -> None:
    """Both families at once: each is a process that takes a while."""
    text = handover(plan, verb=verb)
    with ThreadPoolExecutor(len(_RESTORE)) as pool:
        for said in pool.map(lambda program: _restore(program, text), _RESTORE):
            if said and verb == "-I":
                raise NftError(said)


def _restore(program: str, text: str) -> str:
    """What went wrong, or ""."""
    try:
        done = subprocess.run([program, "--noflush"], input=text, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return f"The program {program} is missing. Install the package iptables."
    return "" if done.returncode == 0 else f"{program}: {done.stderr.strip()}"


def _remove_empty_mangle(nft: Nft, before: str) -> None:
    """iptables-nft makes the whole table for one rule. If it wasn't there, and holds no rule, it goes again."""
    for family in ("ip", "ip6"):
        name = f"table {family} mangle"
        if name in before:
            continue
        with suppress(NftError):  # not there
            listed = nft.run(f"list {name}")
            if "counter" not in listed and "policy drop" not in listed:  # iptables-nft gives every rule a counter
                nft.run(f"delete {name}")
