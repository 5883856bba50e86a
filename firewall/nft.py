"""libnftables: text in, one atomic transaction.

Law: the only file that knows the library (libnftables(3), libnftables.adoc). The connection belongs to the network
namespace that was current when it was made, whatever its owner enters later.
"""

from __future__ import annotations

import ctypes
from types import TracebackType
from typing import Final, Self

_LIBRARY: Final = "libnftables.so.1"
_DEFAULT: Final = 0  # NFT_CTX_DEFAULT: open the netlink socket at once


class NftError(Exception):
    """nft's own words about what it would not do, or why it can't be asked."""


class Nft:
    """A connection to nf_tables, as a context manager. Raises NftError where the library can't be had.

    Closing it removes the tables that it made with `flags owner`.
    """

    def __init__(self, library: str = _LIBRARY) -> None:
        self._library = _load(library)
        self._context: int | None = self._library.nft_ctx_new(_DEFAULT)
        if not self._context:
            raise NftError("libnftables could not open a netlink socket")
        # Otherwise the library would write to our stdout and stderr.
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_buffer_error(self._context)

    def run(self, commands: str) -> str:
        """Carry out all of `commands` (nft(8)) in one transaction, or none of them. Returns what they print.

        Raises NftError.
        """
        if self._context is None:
            raise NftError("this connection is closed")
        failed = self._library.nft_run_cmd_from_buffer(self._context, commands.encode())
        # Reading a buffer also resets it for the next run.
        printed = _text(self._library.nft_ctx_get_output_buffer(self._context))
        complaint = _text(self._library.nft_ctx_get_error_buffer(self._context))
        if failed:
            raise NftError(complaint.strip() or "nft failed without a word")
        return printed

    def can(self, commands: str) -> bool:
        """Would the kernel take these commands? Asked in a transaction that is never committed (nft --check)."""
        self._library.nft_ctx_set_dry_run(self._context, True)  # noqa: FBT003 - C has no keywords
        try:
            self.run(commands)
        except NftError:
            return False
        finally:
            self._library.nft_ctx_set_dry_run(self._context, False)  # noqa: FBT003
        return True

    def close(self) -> None:
        """May be called twice."""
        if self._context is not None:
            self._library.nft_ctx_free(self._context)
            self._context = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _load(name: str) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(name)
    except OSError as error:
        raise NftError(f"{name} can't be loaded ({error}); install the package nftables") from error
    context, text = ctypes.c_void_p, ctypes.c_char_p
    library.nft_ctx_new.argtypes, library.nft_ctx_new.restype = [ctypes.c_uint32], context
    library.nft_ctx_free.argtypes, library.nft_ctx_free.restype = [context], None
    library.nft_ctx_set_dry_run.argtypes, library.nft_ctx_set_dry_run.restype = [context, ctypes.c_bool], None
    library.nft_run_cmd_from_buffer.argtypes = [context, text]
    for stream in ("output", "error"):
        getattr(library, f"nft_ctx_buffer_{stream}").argtypes = [context]
        buffer = getattr(library, f"nft_ctx_get_{stream}_buffer")
        buffer.argtypes, buffer.restype = [context], text
    return library


def _text(raw: bytes | None) -> str:
    return (raw or b"").decode(errors="replace")
