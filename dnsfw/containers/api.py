"""Container engines' own words about their containers: HTTP over a Unix socket.

Law: the only file that knows what engines say in HTTP. Plain GETs, bounded in time and size.
Sources: the Docker Engine API (Podman has the same), CRI-O's inspection endpoint.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import msgspec

from dnsfw.containers.engine import LARGEST, PATIENCE, ROOT, Named, UnansweredError, connect, named

_LINE = 1 << 16  # of one line of a stream
_ID = re.compile(r"[0-9a-f]{12,64}")


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
    """Where a container engine listens that speaks HTTP. See `Engine`."""

    kind: str
    path: Path
    owner: int = ROOT  # the only uid whose answers count
    patience: float = PATIENCE

    @property
    def kinds(self) -> frozenset[str]:
        return frozenset({self.kind})

    @property
    def streams(self) -> bool:
        return self.kind != "crio"

    def inspect(self, container: str) -> Named:
        """Raises UnansweredError, also for a container that it doesn't know."""
        if not _ID.fullmatch(container):
            raise UnansweredError(f"{container!r} is no container's id")
        if self.kind == "crio":
            shown = self._get(f"/containers/{container}", _InspectedByCrio)
            return named(container, shown.image, shown.name)
        said = self._get(f"/containers/{container}/json", _Inspected)
        return named(said.id, said.config.image, said.name.removeprefix("/"))

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
                    yield named(actor.id, actor.attributes.image, actor.attributes.name)

    def _get[T](self, path: str, kind: type[T]) -> T:
        with closing(_Connection(self)) as connection:
            try:
                body = connection.ask(path).read(LARGEST + 1)
                if len(body) > LARGEST:
                    raise UnansweredError(f"{self.path} says more than any container has")
                return msgspec.json.decode(body, type=kind)
            except (OSError, http.client.HTTPException, msgspec.MsgspecError) as error:
                raise UnansweredError(f"{self.path}: {error}") from error


class _Connection(http.client.HTTPConnection):
    """Over a Unix socket, and to its rightful owner."""

    def __init__(self, engine: EngineSocket) -> None:
        super().__init__("localhost")
        self._engine = engine
        self.unix = socket.socket(socket.AF_UNIX)  # `sock` is taken away where an answer ends with the connection

    def connect(self) -> None:
        self.sock = self.unix
        connect(self.sock, self._engine.path, self._engine.owner, self._engine.patience)

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
