"""iptables' part: the rule that puts packets on the queue where the kernel's nft can't (no CONFIG_NFT_QUEUE).

Law: the only file that runs iptables. Adds our exact rules and deletes our exact rules, for IPv4 and IPv6 at the same
time, in the current network namespace. Other rules of the mangle table are read and left alone.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from firewall.handover import chains_in, handover, withdrawal
from firewall.nft import NftError
from firewall.ruleset import Plan

_PROGRAMS: Final = {"ip": "iptables-nft", "ip6": "ip6tables-nft"}  # by nft's name of the family

type Place = tuple[str, str]  # a family, and one of its chains
type _Texts = dict[str, str]  # by family


def hand_over(plan: Plan) -> set[Place]:
    """Put packets to be judged on the plan's queue. What a dead holder of that queue left goes: where it had such rules
    is returned. Raises NftError."""
    saved = _save()
    _restore({family: handover(plan, text) for family, text in saved.items()})
    return {(family, chain) for family, text in saved.items() for chain in chains_in(withdrawal(plan.queue, text))}


def take_back(queue: int) -> set[Place]:
    """Delete our rules for `queue`; where they were. Raises NftError."""
    texts = {family: withdrawal(queue, saved) for family, saved in _save().items()}
    _restore({family: text for family, text in texts.items() if text})
    return {(family, chain) for family, text in texts.items() for chain in chains_in(text)}


def tidy(places: Iterable[Place]) -> None:
    """Remove chains that iptables made for our rules; the kernel keeps those where there are rules in them."""
    for family, chain in places:
        with suppress(NftError):
            _run({family: [_PROGRAMS[family], "-t", "mangle", "-X", chain]}, {})


def _save() -> _Texts:
    return _run({family: [f"{program}-save", "-t", "mangle"] for family, program in _PROGRAMS.items()}, {})


def _restore(texts: _Texts) -> None:
    _run({family: [f"{_PROGRAMS[family]}-restore", "--noflush"] for family in texts}, texts)


def _run(commands: dict[str, list[str]], stdin: _Texts) -> _Texts:
    """All commands at the same time: each is a process that takes a while. What they print."""
    running = {family: _start(command) for family, command in commands.items()}
    said = {family: process.communicate(stdin.get(family, "")) for family, process in running.items()}
    for family, process in running.items():
        if process.returncode != 0:
            raise NftError(f"{' '.join(commands[family])}: {said[family][1].strip()}")
    return {family: printed for family, (printed, _) in said.items()}


def _start(command: list[str]) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    except FileNotFoundError:
        raise NftError(f"the program {command[0]} is missing; install the package iptables") from None
