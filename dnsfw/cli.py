"""The command line.

Law: options, help and exit statuses. What a command does stands in its own module, imported when it is called.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import click

from dnsfw import __version__
from dnsfw.control.commands import COMMANDS
from dnsfw.errors import DnsfwError
from dnsfw.options import ANY_FILE, REPO, configured, effective_options, guard_options, host_options
from dnsfw.playground.command import demo_command
from dnsfw.poison.command import poison_command
from dnsfw.selftest.command import selftest_command
from dnsfw.service.commands import COMMANDS as SERVICE_COMMANDS
from dnsfw.terminal import explain

_ROOTS_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class _Program(click.Group):
    """Ends our own errors in a message and their exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except DnsfwError as error:
            explain(error)
            sys.exit(error.exit_status)


@click.group(cls=_Program, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="dnsfw %(version)s")
def main() -> None:
    """A DNS-first egress firewall: a program reaches the hosts that a policy names, and nothing else.

    \b
    Try it:       sudo dnsfw demo
    One command:  sudo dnsfw run --policy dnsfw.policy -- npm ci
    First look:   sudo dnsfw run --audit -- npm ci

    A policy is a text file, a rule a line: github.com, *.example.com, 192.0.2.0/24:22.
    """


@main.command(short_help="Guard one command.", context_settings={"allow_interspersed_args": False})
@guard_options
@click.option("--fail-on-deny", is_flag=True, help="Exit 3 if the command succeeded but something was denied.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(command: tuple[str, ...], fail_on_deny: bool, **_options: Any) -> None:  # noqa: FBT001 - click's calling convention
    """Run COMMAND in a network of its own from which only what the policy allows can leave.

    COMMAND runs as the user who called sudo. Its input, output, terminal, signals and exit status are its own.
    At the end a summary on standard error names what was denied, by whom, and the line that would allow it.

    \b
    Exit status: COMMAND's; 2 for a mistake in the call or the policy, 3 with --fail-on-deny,
    125 if the guard can't be set up, 126 if COMMAND can't be executed, 127 if it isn't found.
    """
    from dnsfw.host import preflight
    from dnsfw.supervisor.run import run as guarded

    environ = _callers_environment()
    preflight.check("run")
    _unwind_on_termination()
    sys.exit(guarded(configured(host=False), command, environ, fail_on_deny=fail_on_deny))


@main.command(short_help="Guard this host.")
@host_options
@click.option("--detach", is_flag=True, help="Go on in the background; return as soon as the host is guarded.")
def up(*, detach: bool, **_options: Any) -> None:
    """Guard this host: what leaves it is what the policy allows. Stays in the foreground; Ctrl-C ends it.

    Connections that are up already go on, and so do connections from outside to this host. SIGHUP has the policy read
    again; `dnsfw down` ends it from anywhere.

    \b
    Exit status: 0 when ended by a signal (--detach: when the host is guarded); 2 for a mistake in the call or the
    policy, 125 if the guard can't be set up.
    """
    from dnsfw.host import preflight
    from dnsfw.supervisor import up as guard_host

    environ = _callers_environment()
    preflight.check("up")
    _unwind_on_termination()
    options = configured(host=True)
    sys.exit(guard_host.up_detached(options, environ) if detach else guard_host.up(options, environ))


@main.command(short_help="End the guard of this host.")
@click.option("--report", is_flag=True, help="Show what was denied, by whom, and the line that would allow it.")
@click.option("--fail-on-deny", is_flag=True, help="Exit 3 if something was denied.")
def down(**options: Any) -> None:
    """End the guard of this host, wherever it was started, and open the host again, which a killed one leaves closed.

    \b
    Exit status: 0 once the host is as it was, also if nothing guarded it; 3 with --fail-on-deny; 125 if a guard
    doesn't end.
    """
    from dnsfw.host import preflight
    from dnsfw.supervisor.down import down as open_host

    _callers_environment()
    preflight.check("down")
    sys.exit(open_host(**options))


@main.command(short_help="Show what a guard of this host would be told.")
@host_options
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def config(*, as_json: bool, **_options: Any) -> None:
    """Show what `dnsfw up` with these options would be told, and where each part of that comes from: the option, the
    line of the configuration, or the default. The output is a configuration itself.

    \b
    Exit status: 0; 2 for a mistake in the call or in the configuration.
    """
    import msgspec

    from dnsfw.config import show

    effective = effective_options(host=True)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(effective), indent=2).decode())
    else:
        click.echo(show(effective), nl=False)


main.add_command(demo_command)
main.add_command(poison_command)
main.add_command(selftest_command)
for _command in (*COMMANDS, *SERVICE_COMMANDS):
    main.add_command(_command)


@main.command(short_help="Check policies without enforcing them.")
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--format",
    "output",
    type=click.Choice(["text", "json", "github"]),
    default="text",
    help="For people, for machines, or as annotations in GitHub Actions.",
)
@click.option("--strict", is_flag=True, help="Warnings fail too.")
@click.option("--dump", is_flag=True, help="Print the rules of one valid policy as JSON (docs/policy.schema.json).")
@REPO
def check(files: tuple[Path, ...], repo: str, **options: Any) -> None:
    """Check policies without enforcing them: all mistakes, and what is valid but probably not meant.

    FILE is a policy, a GitHub workflow (*.yml) that gives dnsfw one, or - for standard input.

    \b
    Exit status: 0 if all are valid, 1 if not (with --strict: or if there are warnings), 2 for a mistake in the call.
    """
    from dnsfw.policies.check import CheckOptions
    from dnsfw.policies.check import check as check_files

    sys.exit(check_files(files, CheckOptions(**options), _surroundings(repo)))


@main.command("explain", short_help="Say what a policy decides on one subject, and why.")
@click.argument("policy", type=ANY_FILE)
@click.argument("subject")
@click.option("--method", default="GET", show_default=True, help="Of a request.")
@click.option("--exe", default="", help="The process: its executable's path.")
@click.option("--arg", multiple=True, help="One of its arguments; may be repeated, in order.")
@click.option("--user", default="", help="Its user, by name or uid.")
@click.option("--cgroup", default="", help="Its cgroup's path; or @host, @container, @docker.")
@click.option("--image", default="", help="Its container's image.")
@click.option("--step", default="", help="The id of the workflow's step that it belongs to.")
@click.option("--action", default="", help="The repository of the action that it belongs to.")
@click.option("--names", default="", metavar="NAME,...", help="Names that are bound to the subject's address.")
@click.option("--address", default="", help="What the subject's name was resolved to.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@REPO
def explain_command(policy: Path, subject: str, repo: str, *, as_json: bool, **options: Any) -> None:
    """Say what POLICY decides on SUBJECT, by which rule, and why the nearest other rules do not match.

    SUBJECT is https://host/path, tcp://address:port, udp://…, icmp://address or dns:name[/TYPE]. Without a word about
    the process it is an unknown one.

    \b
    Exit status: 0 if it is allowed, 1 if it is denied, 2 for a mistake in the call or the policy.
    """
    from dnsfw.policies.asked import Words
    from dnsfw.policies.explain import explain as explain_subject

    sys.exit(explain_subject(policy, subject, Words(**options), _surroundings(repo), as_json=as_json))


@main.command("fmt", short_help="Bring policies into their canonical form.")
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--check", "mode", flag_value="check", help="Write nothing; say which files are not in canonical form.")
@click.option("--diff", "mode", flag_value="diff", help="Write nothing; show what would change.")
def fmt_command(files: tuple[Path, ...], mode: str | None) -> None:
    """Bring policies into their one canonical form, comments kept. - reads standard input and prints.

    \b
    Exit status: 0; 1 if --check or --diff found something to change; 2 if a policy is not valid, or for a mistake in
    the call.
    """
    from dnsfw.policies.format import Mode, format_files

    sys.exit(format_files(files, Mode(mode or "write")))


def _surroundings(repo: str) -> Any:
    from dnsfw.machine.privilege import calling_user
    from dnsfw.policies.reading import Surroundings

    return Surroundings(os.environ, calling_user(os.environ), repo)


def _callers_environment() -> dict[str, str]:
    """The environment that we were given, for the command; from here on our own programs are found by root's PATH.

    sudo(8) sees to that where it has a `secure_path`, and not everywhere has it.
    """
    given = dict(os.environ)
    os.environ["PATH"] = _ROOTS_PATH
    return given


def _unwind_on_termination() -> None:
    """Until the command runs, signals end us by way of every clean-up."""

    ending = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def stop(number: int, _frame: FrameType | None) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, ending)  # a second Ctrl-C must not cut the clean-up short
        sys.exit(128 + number)

    for number in ending:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)


if __name__ == "__main__":
    main()
