"""The commands `install-service` and `uninstall-service`.

Law: options, help and exit statuses, as in `dnsfw.cli`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import click

from dnsfw.errors import SetupError


@click.command("install-service", short_help="Make dnsfw a service of this host's systemd.")
def install_service() -> None:
    """Make what `dnsfw up` needs as a service: its users, a unit for systemd, a first configuration in /etc/dnsfw.

    Nothing is started. Called again it brings the unit up to date, and leaves your own files alone.

    \b
    Exit status: 0; 125 if something can't be made.
    """
    from dnsfw.service.install import install  # noqa: PLC0415 - when it is called

    _as_root("install-service")
    _tell(install())


@click.command("uninstall-service", short_help="Remove that service.")
def uninstall_service() -> None:
    """End the service and remove its unit and its users. Your files in /etc/dnsfw, and the journals, stay.

    \b
    Exit status: 0; 125 if something can't be removed.
    """
    from dnsfw.service.install import uninstall  # noqa: PLC0415 - when it is called

    _as_root("uninstall-service")
    _tell(uninstall())


COMMANDS = (install_service, uninstall_service)


def _as_root(command: str) -> None:
    if os.geteuid() != 0:
        raise SetupError(f"dnsfw {command} changes files of root's.", f"Call it through sudo: sudo dnsfw {command}")


def _tell(sentences: Iterable[str]) -> None:
    for sentence in sentences:
        click.echo(sentence)
