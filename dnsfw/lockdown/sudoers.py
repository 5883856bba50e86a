"""The text of sudoers(5) that denies one user.

Law: pure. The last rule that matches decides, so one line at the end is enough, whatever is included before it.
"""

from __future__ import annotations


def denying(sudoers: bytes, uid: int) -> bytes:
    """The same with the user of that id denied. Raises ValueError for root, who is never locked out.

    A user is named by number, in which nothing can be injected (sudoers(5), `#uid`).
    """
    if uid <= 0:
        raise ValueError("root keeps sudo")
    end = b"" if sudoers.endswith(b"\n") or not sudoers else b"\n"
    return (
        sudoers + end + f"# while dnsfw guards this host (dnsfw up --lock-sudo)\n#{uid} ALL=(ALL:ALL) !ALL\n".encode()
    )
