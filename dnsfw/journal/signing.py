"""A report that nobody else can have written.

Law: the one file of `dnsfw/` that calls cryptography; imported when something is signed or checked, for it is large.
A statement is the exact bytes of a report with an Ed25519 signature (RFC 8032) over them. Who noted the public key
when the guard began can tell later that this guard wrote it.
"""

from __future__ import annotations

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from dnsfw.errors import DnsfwError
from dnsfw.journal.report import Report


class StatementError(DnsfwError):
    """No statement, or one that this key did not sign."""


class Statement(msgspec.Struct, frozen=True):
    """`report` is the JSON text that was signed; `signature` (64 octets) and `key` (32 octets) are base64 in JSON."""

    report: str
    signature: bytes
    key: bytes


def public_key(seed: bytes) -> bytes:
    """The 32 octets by which statements signed with `seed` (32 secret octets) are known."""
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def sign(report: Report, seed: bytes) -> bytes:
    """A statement as JSON."""
    text = msgspec.json.encode(report)
    signature = Ed25519PrivateKey.from_private_bytes(seed).sign(text)
    return msgspec.json.encode(Statement(text.decode(), signature, public_key(seed)))


def verify(statement: bytes, key: bytes) -> Report:
    """The report that the holder of `key`'s seed signed. Raises StatementError."""
    try:
        said = msgspec.json.decode(statement, type=Statement)
        Ed25519PublicKey.from_public_bytes(key).verify(said.signature, said.report.encode())
        return msgspec.json.decode(said.report, type=Report)
    except (msgspec.MsgspecError, InvalidSignature, ValueError) as error:
        raise StatementError(
            "This statement was not signed with that key.", "Compare the key that was shown when the guard began."
        ) from error
