"""Programs that go on while a guard dies under them, as text for another interpreter.

Law: the standard library alone. Each goes on until its input ends; what it prints is all that is known of it.
"""

from __future__ import annotations

# Tries everything that is denied, all the time. Arguments: a name, then addresses.
SIEGE = """
import contextlib, errno, select, socket, sys
name, *addresses = sys.argv[1:]
label, *rest = name.encode().split(b".")
question = b"".join(bytes([len(part)]) + part for part in (label, *rest)) + b"\\0\\0\\1\\0\\1"
tries = 0
print("begun", flush=True)
while not select.select([sys.stdin], [], [], 0.004)[0]:
    for address in addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as datagram, socket.socket(family) as stream:
            stream.setblocking(False)
            with contextlib.suppress(OSError):
                datagram.sendto(b"denied", (address, 4444))
            with contextlib.suppress(OSError):
                datagram.sendto(tries.to_bytes(4)[2:] + b"\\1\\0\\0\\1" + bytes(6) + question, (address, 53))
            with contextlib.suppress(OSError):
                stream.connect((address, 8443))
        tries += 1
print(tries, flush=True)
"""

# Connects anew all the time to where a proxy takes it, and says what no server may hear. Arguments: name, port.
KNOCK = """
import contextlib, select, socket, sys
tries = 0
print("begun", flush=True)
while not select.select([sys.stdin], [], [], 0.02)[0]:
    with contextlib.suppress(OSError):
        address = socket.getaddrinfo(sys.argv[1], int(sys.argv[2]), socket.AF_INET, socket.SOCK_STREAM)[0][4]
        with socket.create_connection(address, 0.5) as peer:
            peer.sendall(b"denied")
            tries += 1
print(tries, flush=True)
"""

# One connection, on which it hears back what it says. Arguments: address, port. Prints how often, or what broke.
STEADY = """
import select, socket, sys
peer = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
print("begun", flush=True)
said = 0
try:
    while not select.select([sys.stdin], [], [], 0.01)[0]:
        word = b"%d\\n" % said
        peer.sendall(word)
        heard = b""
        while len(heard) < len(word):
            heard += peer.recv(100) or b"closed" * 9
        assert heard == word, heard
        said += 1
    print(said, flush=True)
except Exception as error:
    print(repr(error), flush=True)
"""

# Resolves and connects anew for each line of its input, until it has worked. Arguments: name, port. Prints seconds.
AGAIN = """
import socket, sys, time
print("begun", flush=True)
for _ in sys.stdin:
    began = time.monotonic()
    while True:
        try:
            address = socket.getaddrinfo(sys.argv[1], int(sys.argv[2]), socket.AF_INET, socket.SOCK_STREAM)[0][4]
            socket.create_connection(address, 0.1).close()
            break
        except OSError:
            time.sleep(0.01)
    print(time.monotonic() - began, flush=True)
"""
