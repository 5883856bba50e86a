"""A piece of the internet where every name has an address of its own, and every address takes connections.

Law: a program of the tests', run in the internet's namespace: `fresh.py ADDRESS`. `n-7.fresh.example` is the seventh
address of each family; a time to live of 0. Says "ready", and ends with its standard input.
"""

from __future__ import annotations

import socket
import sys
import threading
from ipaddress import IPv4Address, IPv6Address

from dnslib import AAAA, QTYPE, RR, A, DNSRecord

FIRST_V4, FIRST_V6 = IPv4Address("203.0.113.128"), IPv6Address("2001:db8:bad:f::1")
NETWORK_V4 = "203.0.113.128/25"
PORT = 7777


def answer(question: bytes) -> bytes:
    query = DNSRecord.parse(question)
    number = int(str(query.q.qname).split(".")[0].partition("-")[2])
    reply = query.reply()
    if query.q.qtype == QTYPE.A:
        reply.add_answer(RR(query.q.qname, QTYPE.A, ttl=0, rdata=A(str(FIRST_V4 + number))))
    elif query.q.qtype == QTYPE.AAAA:
        reply.add_answer(RR(query.q.qname, QTYPE.AAAA, ttl=0, rdata=AAAA(str(FIRST_V6 + number))))
    return bytes(reply.pack())


def serve_names(address: str) -> None:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((address, 5353))
        while True:
            question, client = sock.recvfrom(4096)
            sock.sendto(answer(question), client)


def accept(server: socket.socket) -> None:
    while True:
        server.accept()[0].close()


if __name__ == "__main__":
    with socket.create_server(("::", PORT), family=socket.AF_INET6, backlog=512, dualstack_ipv6=True) as server:
        threading.Thread(target=serve_names, args=(sys.argv[1],), daemon=True).start()
        threading.Thread(target=accept, args=(server,), daemon=True).start()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.read()
