"""What opens a QUIC Initial packet: keys that anybody can derive from the packet itself.

Law: the only file of this room that knows the library `cryptography`; imported by whoever has a QUIC packet in hand,
since it takes memory and time to load. Sources: RFC 9001 sections 5.2 to 5.4, RFC 9369 section 3.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC

# Salt, and the prefix of labels, by version (RFC 9001 sections 5.1 and 5.2, RFC 9369 sections 3.3.1 and 3.3.2).
_VERSIONS: Final = {
    0x0000_0001: (bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a"), "quic"),
    0x6B33_43CF: (bytes.fromhex("0dede3def700a6db819381be6e269dcbf9bd2ed9"), "quicv2"),
}
_HASH_OCTETS: Final = 32
SAMPLE: Final = 16  # octets, four octets behind where the packet number begins (RFC 9001 section 5.4.2)


@dataclass(frozen=True, slots=True)
class Keys:
    """A client's keys for Initial packets."""

    key: bytes
    iv: bytes
    header: bytes

    def mask(self, sample: bytes) -> bytes:
        """What hides the packet number and its length (RFC 9001 section 5.4.3)."""
        return Cipher(algorithms.AES(self.header), modes.ECB()).encryptor().update(sample)  # noqa: S305 - RFC 9001

    def open(self, number: int, sealed: bytes, header: bytes) -> bytes | None:
        """The frames in a packet; None if these aren't its keys (RFC 9001 section 5.3)."""
        nonce = (int.from_bytes(self.iv) ^ number).to_bytes(len(self.iv))
        try:
            return AESGCM(self.key).decrypt(nonce, sealed, header)
        except InvalidTag:
            return None


def client_keys(version: int, destination: bytes) -> Keys:
    """From the destination connection id that the client chose. Raises KeyError for a version that isn't 1 or 2."""
    salt, prefix = _VERSIONS[version]
    client = _expand(_hmac(salt, destination), "client in", _HASH_OCTETS)
    return Keys(
        _expand(client, f"{prefix} key", 16), _expand(client, f"{prefix} iv", 12), _expand(client, f"{prefix} hp", 16)
    )


def _expand(secret: bytes, label: str, length: int) -> bytes:
    """HKDF-Expand-Label with no context, for at most one hash's octets (RFC 8446 section 7.1, RFC 5869 section 2.3)."""
    full = b"tls13 " + label.encode()
    described = length.to_bytes(2) + bytes([len(full)]) + full + b"\0"
    return _hmac(secret, described + b"\1")[:length]


def _hmac(key: bytes, data: bytes) -> bytes:
    made = HMAC(key, SHA256())
    made.update(data)
    return made.finalize()
