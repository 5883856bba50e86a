"""`@registry TOOL`: the hosts that a package tool's own configuration on this machine names, as policy text.

Law: no registry's host is written here. The tool is asked, or the configuration that it reads is read; what can't be
learnt is said in a comment of the text, and a tool that can't be asked is a LookupError.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from dnsfw.machine.asking import Asking
from policy import Action, Kind, Rule, address, render
from policy.names import pattern
from policy.rules import SCHEME_PORTS, TCP

type Finds = Iterator[tuple[str, str]]
"""(URL, where it came from); or ("", remark) for what could not be learnt."""


def registry_rules(tool: str, ask: Asking) -> str:
    """Policy text: a host rule a line, each with where it came from. Raises LookupError."""
    if tool not in _TOOLS:
        raise LookupError(f"{tool} is not a tool that can be asked; {', '.join(_TOOLS)} are")
    lines: dict[str, str] = {}
    for url, origin in _TOOLS[tool](ask):
        line = _line(url) if url else f"# {_plain(origin)}"
        if line:
            lines.setdefault(line, f"{line}  # {_plain(origin)}" if url else line)
    if not any(not line.startswith("#") for line in lines):
        raise LookupError(f"{tool} names no registry that is reached over the network")
    return "\n".join(lines.values())


def _line(url: str) -> str:
    """The rule for an http(s) URL's host and port; "" for any other URL, which no host serves. Raises LookupError."""
    try:
        parts = urlsplit(url)
        if parts.scheme not in SCHEME_PORTS:
            return ""
        ports = frozenset({parts.port or SCHEME_PORTS[parts.scheme]})
        return render(_rule(parts.hostname or "", ports))
    except ValueError as error:
        raise LookupError(f"the configuration names {_plain(url)}, which is no usable URL: {error}") from error


def _rule(host: str, ports: frozenset[int]) -> Rule:
    """Raises ValueError: a configured value can say a host and nothing else of the policy language."""
    try:
        return Rule(Action.ALLOW, Kind.ADDRESS, ip_network(address(host)), TCP, ports)
    except ValueError:
        if "*" in host or not re.search(r"(^|\.)[^\W\d_][^.]*\.?$", host):
            raise ValueError(f"{host!r} is not a host name") from None
        return Rule(Action.ALLOW, Kind.HOST, pattern(host), TCP, ports)


def _plain(text: str) -> str:
    """One line of printable text, short enough for a policy's line."""
    return "".join(char for char in text if char.isprintable())[:500]


def _answer(tool: str, text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise LookupError(f"{tool}'s answer can't be read: {error}") from error


# --- npm ---


def _npm(ask: Asking) -> Finds:
    """npm-config(1): the default registry, and one for each scope (`@scope:registry`)."""
    for key, value in _answer("npm", ask("npm", "config", "ls", "--long", "--json")).items():
        if (key == "registry" or key.endswith(":registry")) and isinstance(value, str):
            yield value, f"npm config get {key}"


# --- pip ---

_DEFAULT_INDEX = re.compile(r"--index-url <url>.*?\(default\s+(\S+?)\)", re.DOTALL)
# pip knows a default index's second host, the one that its files are kept on, and no option says it.
_FILE_HOST = "from pip._internal.models.index import PyPI as i; print(i.netloc, i.file_storage_domain)"


def _pip(ask: Asking) -> Finds:
    """`pip install --help` tells the index in force; `pip config list` (environment included) the further ones."""
    settings = dict(_pip_settings(ask("pip", "config", "list")))
    if not any(key.endswith(".no-index") for key in settings):
        told = _DEFAULT_INDEX.search(ask("pip", "install", "--help", COLUMNS="2000"))
        if told is None:
            raise LookupError("pip doesn't say which index it uses")
        yield told[1], "pip install --help: --index-url"
        yield from _pip_files(ask, told[1])
    for key, value in settings.items():
        if key.rpartition(".")[2] in {"extra-index-url", "find-links"}:
            yield from ((url, f"pip config: {key}") for url in value.split())


def _pip_settings(listed: str) -> Iterator[tuple[str, str]]:
    for line in listed.splitlines():
        key, _, value = line.partition("=")
        try:
            yield key, str(ast.literal_eval(value))
        except (ValueError, SyntaxError) as error:
            raise LookupError(f"pip's answer can't be read: {_plain(line)}") from error


def _pip_files(ask: Asking, index: str) -> Finds:
    try:
        python = re.search(r"^sys\.executable: (.+)$", ask("pip", "debug"), re.MULTILINE)
        netloc, files = ask(python[1] if python else "python3", "-I", "-c", _FILE_HOST).split()
    except (LookupError, ValueError):
        yield "", "pip doesn't say which host its default index keeps files on"
        return
    if urlsplit(index).netloc == netloc:
        yield f"https://{files}/", "pip: files of its default index"


# --- apt ---


def _apt(ask: Asking) -> Finds:
    """apt-get(8) indextargets: every enabled source, as apt itself reads sources.list(5), downloaded or not."""
    listed = ask("apt-get", "indextargets", "--no-release-info", "--format", "$(REPO_URI) $(SOURCESENTRY)")
    for line in sorted(set(listed.splitlines())):
        uri, _, place = line.partition(" ")
        method, _, rest = uri.partition(":")
        if method == "mirror+file":
            yield from ((mirror, f"apt: {place}") for mirror in _apt_mirrors(Path("/" + rest.strip("/"))))
            continue
        yield uri.removeprefix("mirror+").replace("mirror:", "http:"), f"apt: {place}"
        if method.startswith("mirror"):
            yield "", f"apt: {place} fetches a list of mirrors; those that it names need rules"


def _apt_mirrors(path: Path) -> Iterable[str]:
    """A list of mirrors, a URI first in each line: apt-transport-mirror(1)."""
    try:
        return [line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise LookupError(f"apt's list of mirrors {path} can't be read: {error}") from error


# --- cargo ---

_NO_PROXY_THERE = "http://127.0.0.1:1"  # cargo is stopped before its first packet, and says what it was to fetch
_FETCHES = re.compile(r"(?:download|fetch|update)[^`]*`(?:sparse\+|registry\+|registry `)*(https?://[^`]+)`")


def _cargo(ask: Asking) -> Finds:
    """The registries and sources of cargo's configuration, and the default one, which cargo itself reports.

    Source: The Cargo Book, "Configuration", "Registries", "Source Replacement".
    """
    home = Path(ask.environ.get("CARGO_HOME") or Path(ask.user.home) / ".cargo")
    replaced = False
    for path in _cargo_files(home):
        settings = _toml(path)
        replaced |= "replace-with" in _table(_table(settings, "source"), "crates-io")
        for table, key in (("registries", "index"), ("source", "registry")):
            for name, entry in _table(settings, table).items():
                if isinstance(entry, dict) and isinstance(entry.get(key), str):
                    yield _bare(entry[key]), f"{path}: {table}.{name}"
    for name, value in ask.environ.items():
        if re.fullmatch(r"CARGO_REGISTRIES_\w+_INDEX", name):
            yield _bare(value), f"environment: {name}"
    if not replaced:
        yield _cargo_default(ask), "cargo search: the index in force"
    yield from _cargo_downloads(home)


def _cargo_files(home: Path) -> Iterator[Path]:
    """The user's own. A project has some as well, but no say in what may leave."""
    yield from (path for path in (home / "config.toml", home / "config") if path.is_file())


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LookupError(f"cargo's configuration {path} can't be read: {error}") from error


def _table(settings: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = settings.get(name)
    return found if isinstance(found, dict) else {}


def _bare(index: str) -> str:
    return index.removeprefix("sparse+").removeprefix("registry+")


def _cargo_default(ask: Asking) -> str:
    """Asked to search through a proxy that isn't there, cargo names the index that it can't reach."""
    closed = {"CARGO_HTTP_PROXY": _NO_PROXY_THERE, "NO_PROXY": "", "no_proxy": "", "CARGO_NET_RETRY": "0"}
    answer = ask.answer(("cargo", "search", "dnsfw"), closed)
    told = _FETCHES.search(answer.complaints)
    if told is None:
        raise LookupError("cargo doesn't say which registry it uses")
    return told[1]


def _cargo_downloads(home: Path) -> Finds:
    """An index says in its config.json where crates are kept; cargo has a copy once it was used."""
    copies = sorted(home.glob("registry/index/*/config.json"))
    for path in copies:
        try:
            told = _answer("cargo", path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise LookupError(f"cargo's copy {path} can't be read: {error}") from error
        for key in ("dl", "api"):
            if isinstance(told.get(key), str):
                yield told[key], f"{path}: {key}"
    if not copies:
        yield "", "cargo has no copy of an index yet: if crates are kept on another host, it is missing here"


# --- go ---


def _go(ask: Asking) -> Finds:
    """`go env`: the module proxies and the checksum database (The Go Modules Reference, "Environment variables")."""
    settings = _answer("go", ask("go", "env", "-json", "GOPROXY", "GOSUMDB", GOTOOLCHAIN="local"))
    for proxy in re.split(r"[,|]", str(settings.get("GOPROXY", "off"))):
        if proxy == "direct":
            yield "", "go: GOPROXY ends in `direct`: what no proxy has is fetched from its own host, which needs a rule"
        elif proxy != "off":
            yield proxy, "go env: GOPROXY"
    words = str(settings.get("GOSUMDB", "off")).split()
    if words and words[0] != "off":
        place = words[1] if len(words) > 1 else words[0].partition("+")[0]
        yield place if "://" in place else f"https://{place}/", "go env: GOSUMDB"


_TOOLS: dict[str, Callable[[Asking], Finds]] = {"npm": _npm, "pip": _pip, "apt": _apt, "cargo": _cargo, "go": _go}
