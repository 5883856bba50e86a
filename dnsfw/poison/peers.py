"""Other forwarders, started for one scenario each with the profile shipped here.

Law: how each is started, and nothing of what it is asked. A profile is a plain forwarder with one upstream, no
DNSSEC validation and everything else as its makers ship it.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import ClassVar, Self

from dnsfw.errors import SetupError
from dnsfw.poison.upstream import Place
from dnsfw.poison.verdict import Standard


@dataclass(frozen=True, slots=True)
class Program:
    """`arguments` and the profile may name {config}, {directory}, {listen}, {port}, {upstream} and {upstream_port}."""

    command: str
    package: str
    arguments: tuple[str, ...]
    version: tuple[str, ...]

    def find(self) -> str | None:
        """Its path: /usr/sbin is not on everybody's PATH."""
        return shutil.which(self.command) or shutil.which(self.command, path="/usr/sbin:/usr/local/sbin")


PROGRAMS = {
    "dnsmasq": Program("dnsmasq", "dnsmasq-base", ("--keep-in-foreground", "--conf-file={config}"), ("--version",)),
    "unbound": Program("unbound", "unbound", ("-d", "-p", "-c", "{config}"), ("-V",)),
    "knot-resolver": Program("kresd", "knot-resolver", ("-n", "-q", "-c", "{config}", "{directory}"), ("--version",)),
    "dnsdist": Program("dnsdist", "dnsdist", ("--supervised", "--disable-syslog", "-C", "{config}"), ("--version",)),
}


def find(name: str) -> str:
    """The path of a peer's program. Raises SetupError where it is not installed."""
    program = PROGRAMS[name]
    path = program.find()
    if path is None:
        raise SetupError(f"{name} is not installed.", f"Install the package {program.package}.")
    return path


def version(name: str) -> str:
    """The first line of what it says about itself, or its name."""
    ran = subprocess.run([find(name), *PROGRAMS[name].version], capture_output=True, text=True, check=False, timeout=10)
    return next(iter((ran.stdout or ran.stderr).splitlines()), name)


class Peer:
    """A fresh process, gone at the end of the scenario, and with the bench if that is killed (setpriv(1))."""

    standard: ClassVar = Standard()

    def __init__(self, name: str, place: Place) -> None:
        self._name, self._place = name, place
        self._process: asyncio.subprocess.Process | None = None
        self._directory = tempfile.TemporaryDirectory(prefix="dnsfw-poison-", ignore_cleanup_errors=True)

    async def __aenter__(self) -> Self:
        directory = Path(self._directory.name)
        config = directory / "config"
        words = self._words(directory, config)
        template = files("dnsfw.poison").joinpath("profiles", f"{self._name}.conf").read_text(encoding="utf-8")
        config.write_text(_filled(template, words), encoding="utf-8")
        arguments = [_filled(each, words) for each in PROGRAMS[self._name].arguments]
        self._output = (directory / "output").open("wb")
        self._process = await asyncio.create_subprocess_exec(
            "setpriv", "--pdeathsig", "KILL", find(self._name), *arguments,
            stdin=subprocess.DEVNULL, stdout=self._output, stderr=self._output, cwd=directory,
        )  # fmt: skip
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process and self._process.returncode is None:
            self._process.kill()
        if self._process:
            await self._process.wait()
        self._output.close()
        self._directory.cleanup()

    def probe(self) -> None:
        return None

    def trouble(self) -> Sequence[str]:
        if self._process is None or self._process.returncode is None:
            return ()
        said = Path(self._directory.name, "output").read_text(errors="replace").strip().splitlines()
        return [f"the process ended with status {self._process.returncode}: {' '.join(said[-2:])}"]

    def _words(self, directory: Path, config: Path) -> dict[str, str]:
        (listen, port), (upstream, upstream_port) = self._place.target, self._place.upstream
        return {
            "{directory}": str(directory),
            "{config}": str(config),
            "{listen}": listen,
            "{port}": str(port),
            "{upstream}": upstream,
            "{upstream_port}": str(upstream_port),
        }


def _filled(text: str, words: dict[str, str]) -> str:
    for word, value in words.items():
        text = text.replace(word, value)
    return text
