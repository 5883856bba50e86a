"""containerd's own words about its containers: gRPC over its Unix socket.

Law: the only file that knows containerd's messages (its api/services: containers, namespaces and events, each v1).
Plain questions, bounded in time and size.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from dnsfw.containers.engine import LARGEST, PATIENCE, ROOT, Named, UnansweredError, connect, named
from dnsfw.containers.fields import fields, last, text
from dnsfw.containers.grpc import Call, CallError

_GET: Final = "/containerd.services.containers.v1.Containers/Get"
_LIST: Final = "/containerd.services.containers.v1.Containers/ListStream"
_NAMESPACES: Final = "/containerd.services.namespaces.v1.Namespaces/List"
_SUBSCRIBE: Final = "/containerd.services.events.v1.Events/Subscribe"
_CREATED: Final = 'topic=="/containers/create"'
_READ = 1 << 16
# An id that somebody chose may be there in several namespaces; the one that cgroups tell is `default`.
_UNIQUE = re.compile(r"[0-9a-f]{64}")
_IDENTIFIER = re.compile(r"[A-Za-z0-9][\w.-]{0,75}", re.ASCII)
_DEFAULT, _KUBERNETES = "default", "k8s.io"
_NAMES = ("nerdctl/name", "io.kubernetes.container.name")  # labels; without one, a container is called by its id
_ASKED_FOR = "io.kubernetes.cri.image-name"  # where Kubernetes is: the image may be known by a digest only


class _Spec(msgspec.Struct):
    """Of an OCI runtime specification."""

    annotations: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Containerd:
    """Where a containerd listens. See `Engine`."""

    path: Path
    owner: int = ROOT  # the only uid whose answers count
    patience: float = PATIENCE
    kinds: frozenset[str] = frozenset({"containerd", "cri-containerd", "nerdctl"})
    streams: bool = True

    def inspect(self, container: str) -> Named:
        """Raises UnansweredError, also for a container that it doesn't know."""
        unique = _UNIQUE.fullmatch(_identifier(container))
        for namespace in self._namespaces() if unique else [_DEFAULT]:
            with suppress(UnansweredError):
                return self._get(namespace, container)
        raise UnansweredError(f"{self.path} knows no {container}")

    def made(self) -> Iterator[Named]:
        """Those that there are, then all others as they are made, before they run; ends when the engine does. It is
        listened to before it is asked. Raises UnansweredError."""
        with closing(_Conversation(self, _SUBSCRIBE, text(1, _CREATED))) as creations:
            for namespace in self._namespaces():
                for message in self._answers(_LIST, b"", namespace):
                    with suppress(UnansweredError):  # without an image, or another one's namesake
                        yield _only(message, namespace)
            for envelope in creations.answers(until=None):
                with suppress(UnansweredError):  # or gone by now
                    yield self._get(*_created(envelope))

    def _namespaces(self) -> list[str]:
        return [name for answer in self._answers(_NAMESPACES) for name in _names(answer)]

    def _get(self, namespace: str, container: str) -> Named:
        for answer in self._answers(_GET, text(1, container), namespace):
            return _only(answer, namespace)
        raise UnansweredError("containerd says nothing")

    def _answers(self, method: str, request: bytes = b"", namespace: str = "") -> Iterator[bytes]:
        with closing(_Conversation(self, method, request, namespace)) as conversation:
            yield from conversation.answers(until=time.monotonic() + self.patience)


class _Conversation:
    """One call, on a connection of its own. Raises UnansweredError."""

    def __init__(self, engine: Containerd, method: str, request: bytes, namespace: str = "") -> None:
        self._call = Call(method, request, {"containerd-namespace": namespace} if namespace else {}, LARGEST)
        self._unix = socket.socket(socket.AF_UNIX)
        try:
            connect(self._unix, engine.path, engine.owner, engine.patience)
            self._unix.sendall(self._call.sending())
        except OSError as error:
            self.close()
            raise UnansweredError(f"{engine.path}: {error}") from error

    def answers(self, until: float | None) -> Iterator[bytes]:
        """As they come, to the last one; until that time, on time.monotonic()'s clock."""
        try:
            while not self._call.over:
                self._unix.settimeout(None if until is None else max(0.0, until - time.monotonic()))
                if not (octets := self._unix.recv(_READ)):
                    raise UnansweredError("containerd hung up")
                yield from self._call.receive(octets)
                self._unix.sendall(self._call.sending())
        except (OSError, CallError) as error:
            raise UnansweredError(f"containerd: {error}") from error

    def close(self) -> None:
        self._unix.close()


@contextmanager
def _understood() -> Iterator[None]:
    """What can't be is no answer."""
    try:
        yield
    except (ValueError, LookupError, RecursionError, msgspec.MsgspecError) as error:
        raise UnansweredError(f"containerd says what makes no sense: {error}") from error


@_understood()
def _names(answer: bytes) -> list[str]:
    """ListNamespacesResponse: 1 namespaces, each with 1 name."""
    return [_identifier(last(namespace)[1].decode()) for number, namespace in fields(answer) if number == 1]


@_understood()
def _created(envelope: bytes) -> tuple[str, str]:
    """The namespace and the id in an Envelope: 2 namespace, 4 a ContainerCreate with 1 id."""
    said = last(envelope)
    return _identifier(said[2].decode()), _identifier(last(_any(said[4]))[1].decode())


@_understood()
def _only(answer: bytes, namespace: str) -> Named:
    """GetContainerResponse and ListContainerMessage: 1 container."""
    return _container(last(answer)[1], namespace)


def _container(message: bytes, namespace: str) -> Named:
    """Container: 1 id, 2 labels, 3 image, 5 specification."""
    said = last(message)
    container = _identifier(said[1].decode())
    if namespace != _DEFAULT and not _UNIQUE.fullmatch(container):
        raise UnansweredError(f"{container} may be in another namespace too")
    labels = dict(_entry(content) for number, content in fields(message) if number == 2)
    name = next((labels[label] for label in _NAMES if label in labels), container)
    image = said.get(3, b"").decode()
    if namespace == _KUBERNETES and 5 in said:
        image = msgspec.json.decode(_any(said[5]), type=_Spec).annotations.get(_ASKED_FOR, image)
    return named(container, image, name)


def _identifier(name: str) -> str:
    """Itself, of a namespace or a container."""
    if not _IDENTIFIER.fullmatch(name):
        raise UnansweredError(f"{name!r} is no id of containerd's")
    return name


def _entry(message: bytes) -> tuple[str, str]:
    """Of a map of texts: 1 key, 2 value, each "" if it isn't there."""
    said = last(message)
    return said.get(1, b"").decode(), said.get(2, b"").decode()


def _any(message: bytes) -> bytes:
    """google.protobuf.Any: 1 type, 2 value."""
    return last(message)[2]
