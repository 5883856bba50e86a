"""The options of guards, and what they come to together with the machine's configuration.

Law: click's side of `dnsfw.config`: names, help, types. Each option stands for one key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from dnsfw.config import Effective
    from dnsfw.place import GuardOptions

ANY_FILE = click.Path(path_type=Path, dir_okay=False)
_COUNT = click.IntRange(1, 1_000_000_000)
# What each option is called in the configuration, and how it is written there.
_KEYS: Mapping[str, str] = {
    "policy": "policy",
    "audit": "audit",
    "upstreams": "upstreams",
    "refused": "refused",
    "repo": "repo",
    "token_file": "token_file",
    "journal": "journal.file",
    "journal_mebibytes": "journal.mebibytes",
    "journal_files": "journal.files",
    "metrics_port": "metrics.port",
    "names_a_minute": "budget.names_a_minute",
    "octets_a_minute": "budget.octets_a_minute",
    "names_a_job": "budget.names_a_job",
    "octets_a_job": "budget.octets_a_job",
    "install_ca": "install_ca",
    "set_resolver": "set_resolver",
    "lock_sudo": "lockdown.sudo",
    "lock_containers": "lockdown.containers",
    "lock_user_namespaces": "lockdown.user_namespaces",
    "lock_ptrace": "lockdown.ptrace",
}


class _Upstream(click.ParamType[Any]):
    """ADDR, ADDR:PORT, [V6] or [V6]:PORT."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from resolver.upstreams import UpstreamError, parse_upstream  # noqa: PLC0415 - for help, nothing is loaded

        try:
            return parse_upstream(value)
        except UpstreamError as error:
            self.fail(str(error), param, ctx)


def _repository(_context: click.Context, _option: click.Parameter, value: str) -> str:
    if value and not re.fullmatch(r"[\w.-]+/[\w.-]+", value, re.ASCII):
        raise click.BadParameter("write OWNER/NAME, as in octocat/hello-world")
    return value


REPO = click.option("--repo", default="", metavar="OWNER/NAME", callback=_repository,
                    help="What {owner} and {repo} in the policy stand for. Default: $GITHUB_REPOSITORY.")  # fmt: skip

_COMMON = (
    click.option("--policy", type=ANY_FILE, help="What may leave. Default: dnsfw.policy in this folder."),
    click.option("--audit", is_flag=True, help="Deny nothing; report what would have been denied."),
    click.option("--upstream", "upstreams", type=_Upstream(), multiple=True, metavar="ADDR[:PORT]",
                 help="Forward DNS to this server; may be repeated. Default: this host's own servers."),
    click.option("--journal", type=ANY_FILE, help="Append every decision to this file, a JSON object a line."),
    click.option("--journal-mebibytes", type=click.IntRange(1, 65_536), metavar="N",
                 help="Turn a journal over that is as large: FILE becomes FILE.1 and so on. Default: 64."),
    click.option("--journal-files", type=click.IntRange(1, 1_000), metavar="N",
                 help="Keep so many files of a journal. Default: 5."),
    click.option("--refused", is_flag=True, help="Answer denied names with REFUSED instead of NXDOMAIN."),
    click.option("--names-a-minute", type=_COUNT, metavar="N",
                 help="New names under one wildcard in a minute; more are taken for a tunnel. Default: 100."),
    click.option("--octets-a-minute", type=_COUNT, metavar="N", help="Octets in those names. Default: 2048."),
    click.option("--names-a-job", type=_COUNT, metavar="N", help="The same while the guard lives. Default: 1000."),
    click.option("--octets-a-job", type=_COUNT, metavar="N", help="The same while the guard lives. Default: 16384."),
    REPO,
    click.option("-q", "--quiet", is_flag=True, help="No summary at the end."),
    click.option("--config", type=click.Path(path_type=Path, dir_okay=False, exists=True), metavar="FILE",
                 help="The machine's configuration. Default: /etc/dnsfw/config.toml, if it is there."),
)  # fmt: skip
_OF_HOSTS = (
    click.option("--token-file", type=ANY_FILE, metavar="FILE",
                 help="Holds a token; who has it may stop and reload the guard, and turn sudo on, without root."),
    click.option("--metrics-port", type=click.IntRange(1, 65_535), metavar="PORT",
                 help="Serve metrics for Prometheus on this port of 127.0.0.1."),
    click.option("--install-ca", is_flag=True,
                 help="For URL rules: have this host's programs trust dnsfw's proxy, until the end."),
    click.option("--set-resolver", is_flag=True,
                 help="Have resolv.conf and systemd-resolved name dnsfw; every question comes to it in any case."),
    click.option("--lock-sudo", metavar="USER", help="Take sudo from USER while the host is guarded."),
    click.option("--lock-containers", metavar="USER", help="Close the container engines' sockets to USER meanwhile."),
    click.option("--lock-user-namespaces", is_flag=True, help="Let nobody but root make user namespaces meanwhile."),
    click.option("--lock-ptrace", is_flag=True, help="Let only root trace other processes meanwhile."),
)  # fmt: skip


def _with(options: tuple[Callable[[Any], Any], ...], command: Any) -> Any:
    for option in reversed(options):
        command = option(command)
    return command


guard_options = partial(_with, _COMMON)
host_options = partial(_with, (*_COMMON, *_OF_HOSTS))


def effective_options(*, host: bool) -> Effective:
    """Of the command that is being called: what holds, and why. Raises UsageError."""
    from dnsfw.config import CONFIG, Given, effective, read_config  # noqa: PLC0415 - once it is needed

    context = click.get_current_context()
    given = {
        option: _plain(value)
        for option, value in context.params.items()
        if option in _KEYS and context.get_parameter_source(option) is click.core.ParameterSource.COMMANDLINE
    }
    words = {param.name: param.opts[-1] for param in context.command.params}
    file = read_config(context.params["config"] or CONFIG)
    called = Given(
        {_KEYS[option]: value for option, value in given.items()},
        {_KEYS[option]: str(words[option]) for option in given},
    )
    return effective(file if host else file.of_the_machine(), called)


def configured(*, host: bool) -> GuardOptions:
    """The same as what a guard takes. Raises UsageError."""
    from dnsfw.control.commands import read_token  # noqa: PLC0415 - as above
    from dnsfw.journal.file import Rotation  # noqa: PLC0415
    from dnsfw.lockdown.wanted import Lockdown  # noqa: PLC0415
    from dnsfw.place import GuardOptions  # noqa: PLC0415
    from policy import Limits  # noqa: PLC0415
    from resolver.upstreams import parse_upstream  # noqa: PLC0415

    settings = effective_options(host=host).settings
    journal, budget, lockdown = settings.journal, settings.budget, settings.lockdown
    return GuardOptions(
        policy=Path(settings.policy) if settings.policy else None,
        audit=settings.audit,
        upstreams=tuple(map(parse_upstream, settings.upstreams)),
        journal=Path(journal.file) if journal.file else None,
        refused=settings.refused,
        quiet=click.get_current_context().params["quiet"],
        repo=settings.repo,
        token=read_token(Path(settings.token_file)) if settings.token_file else "",
        rotation=Rotation(journal.mebibytes << 20, journal.files),
        limits=Limits(budget.names_a_minute, budget.octets_a_minute, budget.names_a_job, budget.octets_a_job),
        metrics_port=settings.metrics.port,
        install_ca=settings.install_ca,
        set_resolver=settings.set_resolver,
        lockdown=Lockdown(lockdown.sudo, lockdown.containers, lockdown.user_namespaces, lockdown.ptrace),
    )


def _plain(value: Any) -> Any:
    """As a configuration has it."""
    if isinstance(value, tuple):
        return [str(each) for each in value]
    return value if isinstance(value, bool | int) else str(value)
