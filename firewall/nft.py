"""libnftables: text in, one atomic transaction.

Law: the only file that knows the library (libnftables(3)). It acts on the network namespace that was current when the
object was made, for as long as it lives; a table with `flags owner` lives as long.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from types import TracebackType
from typing import Any, Self

_REMEDY = "Install the package nftables."


class NftError(Exception):
    """nft's own words about what it would not do."""


def _load() -> ctypes.CDLL:
    name = ctypes.util.find_library("nftables") or "libnftables.so.1"
    try:
        library = ctypes.CDLL(name)
    except OSError as error:
        raise NftError(f"libnftables can't be loaded: {error}. {_REMEDY}") from error
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_new.argtypes = [ctypes.c_uint32]
    library.nft_ctx_free.argtypes = [ctypes.c_void_p]
    for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
        getattr(library, name).restype = ctypes.c_char_p
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    return library


class Nft:
    """A connection to nf_tables. A context manager; closing it is what ends tables of its own."""

    def __init__(self) -> None:
        self._library: Any = _load()
        self._context = self._library.nft_ctx_new(0)
        if not self._context:
            raise NftError("libnftables gives no context")
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_buffer_error(self._context)

    def run(self, commands: str) -> str:
        """Carry out all of `commands` (nft(8)) or none; what they print. Raises NftError."""
        failed = self._library.nft_run_cmd_from_buffer(self._context, commands.encode())
        printed = self._library.nft_ctx_get_output_buffer(self._context) or b""
        if failed:
            said = self._library.nft_ctx_get_error_buffer(self._context) or b""
            raise NftError(said.decode(errors="replace").strip() or "nft failed without a word")
        return str(printed.decode(errors="replace"))

    def close(self) -> None:
        """May be called twice."""
        if self._context:
            self._library.nft_ctx_free(self._context)
            self._context = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
