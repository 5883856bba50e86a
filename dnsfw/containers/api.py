"""Container engines' own words about their containers: HTTP over a Unix socket.

Law: the only file that speaks to a container engine. Plain GETs, bounded in time and size; whoever may answer is root.
Sources: the Docker Engine API (Podman has the same), CRI-O's inspection endpoint.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import struct
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import msgspec

_PATIENCE = 2.0  # seconds for one answer
_LARGEST = 1 << 22  # octets of one answer
_LINE = 1 << 16  # of one line of a stream
_ID = re.compile(r"[0-9a-f]{12,64}")
_CREDENTIALS = struct.Struct("=3i")  # struct ucred: pid, uid, gid
_ROOT = 0


class UnansweredError(Exception):
    """The engine isn't there, isn't root's, or says nothing that could be understood."""


@dataclass(frozen=True, slots=True)
class Named:
    """A container by its full id."""

    id: str
    image: str
    name: str


class _Config(msgspec.Struct, rename="pascal"):
    image: str


class _Inspected(msgspec.Struct, rename="pascal"):
    id: str
    name: str
    config: _Config


class _InspectedByCrio(msgspec.Struct):
    name: str
    image: str


class _Running(msgspec.Struct, rename="pascal"):
    id: str


class _Attributes(msgspec.Struct):
    image: str
    name: str


class _Actor(msgspec.Struct):
    id: str = msgspec.field(name="ID")
    attributes: _Attributes = msgspec.field(name="Attributes")


class _Made(msgspec.Struct, rename="pascal"):
    actor: _Actor


@dataclass(frozen=True, slots=True)
class EngineSocket:
    """Where a container engine listens. `kind` is what its containers' cgroups are named after."""

    kind: str
    path: Path
    owner: int = _ROOT  # the only uid whose answers count

    @property
    def streams(self) -> bool:
        """Does it tell of containers as they are made?"""
        return self.kind != "crio"

    def inspect(self, container: str) -> Named:
        """Raises UnansweredError, also for a container that it doesn't know."""
        if not _ID.fullmatch(container):
            raise UnansweredError(f"{container!r} is no container's id")
        if self.kind == "crio":
            shown = self._get(f"/containers/{container}", _InspectedByCrio)
            return _named(container, shown.image, shown.name)
        said = self._get(f"/containers/{container}/json", _Inspected)
        return _named(said.id, said.config.image, said.name)

    def running(self) -> list[str]:
        """The ids of all containers that run now. Raises UnansweredError."""
        return [each.id for each in self._get("/containers/json", list[_Running])]

    def made(self) -> Iterator[Named]:
        """Those that run, then all others as they are made, before they run; ends when the engine does. None is
        missed in between: the engine is listened to before it is asked. Raises UnansweredError, OSError."""
        filters = quote(json.dumps({"type": ["container"], "event": ["create", "start"]}))
        with closing(_Connection(self)) as connection:
            response = connection.ask(f"/events?filters={filters}")
            for container in self.running():
                with suppress(UnansweredError):  # gone by now
                    yield self.inspect(container)
            connection.unix.settimeout(None)
            while line := response.readline(_LINE):
                with suppress(msgspec.MsgspecError, UnansweredError):  # not what we asked for; there is `inspect` still
                    actor = msgspec.json.decode(line, type=_Made).actor
                    yield _named(actor.id, actor.attributes.image, actor.attributes.name)

    def _get[T](self, path: str, kind: type[T]) -> T:
        with closing(_Connection(self)) as connection:
            try:
                body = connection.ask(path).read(_LARGEST + 1)
                if len(body) > _LARGEST:
                    raise UnansweredError(f"{self.path} says more than any container has")
                return msgspec.json.decode(body, type=kind)
            except (OSError, http.client.HTTPException, msgspec.MsgspecError) as error:
                raise UnansweredError(f"{self.path}: {error}") from error


class _Connection(http.client.HTTPConnection):
    """Over a Unix socket, and to its rightful owner."""

    def __init__(self, engine: EngineSocket) -> None:
        super().__init__("localhost", timeout=_PATIENCE)
        self._engine = engine
        self.unix = socket.socket(socket.AF_UNIX)  # `sock` is taken away where an answer ends with the connection

    def connect(self) -> None:
        self.sock = self.unix
        self.sock.settimeout(_PATIENCE)
        self.sock.connect(str(self._engine.path))
        raw = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        if _CREDENTIALS.unpack(raw)[1] != self._engine.owner:
            raise OSError(f"{self._engine.path} is not root's")

    def close(self) -> None:
        super().close()
        self.unix.close()

    def ask(self, path: str) -> http.client.HTTPResponse:
        """Raises UnansweredError."""
        try:
            self.request("GET", path)
            response = self.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise UnansweredError(f"{self._engine.path}: {error}") from error
        if response.status != http.HTTPStatus.OK:
            raise UnansweredError(f"{self._engine.path}: {response.status}")
        return response


def _named(container: str, image: str, name: str) -> Named:
    if not image:
        raise UnansweredError("a container without an image")
    return Named(container, image, name.removeprefix("/"))
