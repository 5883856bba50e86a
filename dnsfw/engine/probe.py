"""Trying a guard from inside: what a program without any privilege sees.

Law: runs in a child of the supervisor's that has given everything up, in the guarded network namespace. Tries what it
was told, says what came of it, judges nothing.
"""

from __future__ import annotations

import errno
import os
import secrets
import socket
from contextlib import suppress

import msgspec
from dnslib import QTYPE, RCODE, DNSError, DNSHeader, DNSQuestion, DNSRecord

from dnsfw.channel import Probe
from dnsfw.machine.privilege import User, become
from dnsfw.place import Place

_NOBODY = User(65_534, 65_534, (), "nobody", "/", "/usr/sbin/nologin")
_RESOLVER = ("127.0.0.1", 53)  # any address would do: all of port 53 is redirected
_LOOK_UP_SECONDS = 6.0
_CONNECT_SECONDS = 5.0


class Probed(msgspec.Struct, frozen=True):
    """What came of it, in order: an RCODE or a word, "connected" or an errno's name; "" for what was not tried."""

    look_up: str
    connect: str
    no_look_up: str
    no_connect: str


def probe(place: Place, told: Probe, answer: int) -> int:
    """Write a Probed to that descriptor."""
    if place.network is not None:
        place.network.enter()
    become(_NOBODY)
    os.write(answer, msgspec.json.encode(_try(told)))
    return 0


def _try(told: Probe) -> Probed:
    rcode, addresses = _look_up(told.host) if told.host else ("", [])
    connected = _connect(addresses[0], told.port) if addresses else ""
    no_rcode, _ = _look_up(told.no_host)
    return Probed(rcode, connected, no_rcode, _connect(*told.no_place))


def _look_up(name: str) -> tuple[str, list[str]]:
    """The RCODE, and addresses: IPv4 ones, else IPv6."""
    rcode, found = "no answer", list[str]()
    for qtype in (QTYPE.A, QTYPE.AAAA):
        asked = DNSRecord(DNSHeader(id=secrets.randbits(16), rd=1), q=DNSQuestion(name, qtype))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, suppress(OSError, DNSError):
            sock.settimeout(_LOOK_UP_SECONDS)
            sock.connect(_RESOLVER)
            sock.send(asked.pack())
            said = DNSRecord.parse(sock.recv(65_535))
            rcode = str(RCODE.get(said.header.rcode))
            found = [str(record.rdata) for record in said.rr if record.rtype == qtype]
        if found or rcode != "NOERROR":
            break
    return rcode, found


def _connect(host: str, port: int) -> str:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(_CONNECT_SECONDS)
        try:
            sock.connect((host, port))
        except TimeoutError:
            return "time-out"
        except OSError as error:
            return errno.errorcode.get(error.errno or 0, "failed")
    return "connected"
