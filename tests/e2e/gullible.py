"""A forwarder that believes everything: `python gullible.py ADDRESS PORT UPSTREAM PORT`.

Law: a stand-in for a victim. One upstream port and the client's own id; the first datagram that comes to that port is
relayed to whoever asked last, whatever it says and wherever it came from. A question as such is never looked at.
"""

from __future__ import annotations

import select
import socket
import sys


def main(address: str, port: str, upstream: str, upstream_port: str) -> None:
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind((address, int(port)))
    outside = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    outside.bind((address, 0))
    client = None
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        for ready in select.select([listener, outside], [], [])[0]:
            data, peer = ready.recvfrom(0x10000)
            if ready is listener:
                client = peer
                outside.sendto(data, (upstream, int(upstream_port)))
            elif client is not None:
                listener.sendto(data, client)


if __name__ == "__main__":
    main(*sys.argv[1:])
