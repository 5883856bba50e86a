"""Bridges that lead nowhere but to what runs on this host: containers, virtual machines.

Law: who is one is told purely, from what ip(8) shows; what the kernel knows of it is a set of our table. A bridge with
any port that could be a way out is none, and an unknown kind could.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from types import TracebackType
from typing import Final, Self

from firewall.nft import Nft, NftError
from firewall.plan import TABLE

SET: Final = "inner"
# What containers and virtual machines are plugged in by. Tunnels aren't: what they carry away is judged, and yet away.
_PLUGS: Final = frozenset({"veth", "tun"})


def inner_bridges(links: str, routes: Iterable[str]) -> frozenset[str]:
    """Their names, in the JSON of `ip -json -details link show` and of `ip -json route show` for each family.

    Raises ValueError, TypeError, LookupError or AttributeError for another format.
    """
    shown = json.loads(links)
    bridges = {link["ifname"] for link in shown if _kind(link) == "bridge"}
    leading_out = {link.get("master") for link in shown if _kind(link) not in _PLUGS}
    # Where this host is a container itself, its own way out may be plugged in like that.
    leading_out |= {route.get("dev") for text in routes for route in json.loads(text) if "gateway" in route}
    return frozenset(bridges - leading_out)


def shared_bridges(links: str) -> tuple[str, ...]:
    """Those that have both a container or virtual machine plugged in and a way out of their own, in the same JSON: what
    goes from one to the other never meets this host's IP. Raises as `inner_bridges`."""
    shown = json.loads(links)
    plugged, other = (
        {link.get("master") for link in shown if (_kind(link) in _PLUGS) is plug} for plug in (True, False)
    )
    return tuple(sorted(link["ifname"] for link in shown if link["ifname"] in plugged & other))


def _kind(link: dict[str, dict[str, str]]) -> str:
    """ "" for hardware."""
    return link.get("linkinfo", {}).get("info_kind", "")


class InnerBridges:
    """Keeps the set `inner` of the table in force, in the network namespace that is current at construction and at
    every call; `shared` are the bridges that pass us by. A context manager."""

    def __init__(self) -> None:
        self._nft = Nft()
        self.shared: tuple[str, ...] = ()

    def update(self) -> None:
        """Raises NftError, and then the set is empty or as it was."""
        try:
            routes = [_show(family, "route", "show", "table", "all") for family in ("-4", "-6")]
            links = _show("-details", "link", "show")
            names, self.shared = inner_bridges(links, routes), shared_bridges(links)
        except (OSError, ValueError, TypeError, LookupError, AttributeError, subprocess.CalledProcessError) as error:
            self._nft.run(_filling(frozenset()))
            raise NftError(f"ip(8) doesn't say what bridges there are: {error}") from error
        self._nft.run(_filling(names))

    def close(self) -> None:
        self._nft.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _show(*what: str) -> str:
    return subprocess.run(["ip", "-json", *what], capture_output=True, check=True, text=True).stdout


def _filling(names: frozenset[str]) -> str:
    """nft text that makes `names` the set, in one transaction. One that nft has no word for is left out."""
    named = [f'"{name}"' for name in sorted(names) if name.isprintable() and '"' not in name]
    lines = [f"flush set {TABLE} {SET}"]
    lines += [f"add element {TABLE} {SET} {{ {', '.join(named)} }}"] if named else []
    return "\n".join([*lines, ""])
