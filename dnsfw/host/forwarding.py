"""A way through a host's own forward filter.

Law: container engines and host firewalls set iptables' FORWARD chain to drop what they don't know, our uplink
included; an accept elsewhere does not help, as every chain has its say. Where that is so, two rules of ours stand
first in that chain while a run lasts. Nothing else of it is touched.
"""

from __future__ import annotations

import subprocess

from dnsfw.errors import SetupError
from firewall.nft import Nft, NftError

_FAMILIES = {"ip": "iptables-nft", "ip6": "ip6tables-nft"}


def restrictive(chain: str) -> bool:
    """Does nft's listing of a FORWARD chain show anything but an empty, accepting chain?"""
    return "policy drop" in chain or any(word in chain for word in (" drop", "reject", "jump", "xt target"))


def restricted_families(nft: Nft) -> tuple[str, ...]:
    """The families ("ip", "ip6") whose FORWARD chain could drop what we forward."""
    return tuple(family for family in _FAMILIES if restrictive(_forward_chain(nft, family)))


def permit(link: str, families: tuple[str, ...]) -> None:
    """Let the interface `link` through, out and back. Raises SetupError."""
    for family in families:
        for rule in _rules(link):
            said = _iptables(family, "-I", rule)
            if said:
                raise SetupError(f"The host's forward filter can't be told of the uplink: {said}")


def withdraw(link: str, families: tuple[str, ...]) -> None:
    """Take the rules back. Not there: fine."""
    for family in families:
        for rule in _rules(link):
            _iptables(family, "-D", rule)


def _rules(link: str) -> tuple[list[str], list[str]]:
    returning = ["-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED"]
    return ["FORWARD", "-i", link, "-j", "ACCEPT"], ["FORWARD", "-o", link, *returning, "-j", "ACCEPT"]


def _forward_chain(nft: Nft, family: str) -> str:
    try:
        return nft.run(f"list chain {family} filter FORWARD")
    except NftError:  # no such chain
        return ""


def _iptables(family: str, verb: str, rule: list[str]) -> str:
    """What went wrong, or ""."""
    done = subprocess.run([_FAMILIES[family], verb, *rule], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr.strip()
