"""What an honest build does, which must go on working.

Law: one function a need, each over both address families where that makes a difference.
"""

from __future__ import annotations

import socket

from dnsfw.playground import atlas
from dnsfw.playground.package.way import Loot, Way
from dnsfw.playground.package.web import Get, fetch


def _resolve(name: str, family: int) -> str:
    (_, _, _, _, address), *_ = socket.getaddrinfo(name, 443, family, socket.SOCK_STREAM)
    return str(address[0])


def _download(loot: Loot, name: str, family: int, folder: str = "") -> None:
    fetch(loot, Get(_resolve(name, family), name, name, f"{folder}/{loot.token}"))


def allowed_v4(loot: Loot) -> None:
    _download(loot, atlas.ALLOWED_NAME, socket.AF_INET)


def allowed_v6(loot: Loot) -> None:
    _download(loot, atlas.ALLOWED_NAME, socket.AF_INET6)


def wildcard_v4(loot: Loot) -> None:
    _download(loot, atlas.SHARED_NAME, socket.AF_INET, atlas.ASSETS)


def wildcard_v6(loot: Loot) -> None:
    _download(loot, atlas.SHARED_NAME, socket.AF_INET6, atlas.ASSETS)


NEEDS = (
    Way("build-allowed4", f"https://{atlas.ALLOWED_NAME}/ over IPv4", (), allowed_v4),
    Way("build-allowed6", f"https://{atlas.ALLOWED_NAME}/ over IPv6", (), allowed_v6),
    Way("build-wildcard4", f"https://{atlas.SHARED_NAME}/… over IPv4", (), wildcard_v4),
    Way("build-wildcard6", f"https://{atlas.SHARED_NAME}/… over IPv6", (), wildcard_v6),
)
