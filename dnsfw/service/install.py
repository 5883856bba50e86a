"""Making and removing the service.

Law: `root` is where the host's files are, a directory of its own in tests. Whatever is there already stays: accounts,
configuration, policy. Removing leaves the administrator's own files.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from dnsfw import config
from dnsfw.errors import SetupError
from dnsfw.machine.custody import replaceable
from dnsfw.machine.privilege import ROOT
from dnsfw.place import ENGINE_USER, PROXY_USER
from dnsfw.policies.reading import Surroundings, valid_policy
from policy import Key, Kind, Rule

_HERE = Path(__file__).parent
_UNIT = Path("etc/systemd/system/dnsfw.service")
_DROP_INS = Path("etc/systemd/system/dnsfw.service.d")
_SETTINGS = Path("etc/dnsfw")
_POLICY = "dnsfw.policy"
_ACCOUNTS = (ENGINE_USER.name, PROXY_USER.name)
_MORE = ("lockdown.conf", "policy.conf")  # drop-ins for what few hosts want
_FIRST_POLICY = """\
# What may leave this host: a rule a line. Nothing is allowed yet.
# `dnsfw check` finds mistakes; `dnsfw up --audit` shows what would be denied.
"""
_FIRST_CONFIG = """\
# Of `dnsfw up` on this host. `dnsfw config` shows all keys, their values, and where each comes from.
policy = "/etc/dnsfw/dnsfw.policy"

[journal]
file = "/var/log/dnsfw/journal.jsonl"
"""


def install(root: Path = Path("/"), executable: Path | None = None) -> Iterator[str]:
    """Make engine's and proxy's accounts, the unit, and a first configuration; a sentence for each thing that was made.

    Raises SetupError where root would start a program that somebody else can change.
    """
    program = executable or _own_program()
    who = replaceable(program)
    if who:
        raise SetupError(
            f"Root would start a program at boot that others can change: {who}.",
            "Install dnsfw where only root can write: sudo python3 -m venv /opt/dnsfw, and pip install into it.",
        )
    for account in _ACCOUNTS:
        if _make_user(root, account):
            yield f"made the user {account}"
    for name, text in ((_POLICY, _FIRST_POLICY), ("config.toml", _FIRST_CONFIG)):
        if _write(root / _SETTINGS / name, text, anew=False):
            yield f"wrote /{_SETTINGS / name}: look at it before anything else"
    unit = (_HERE / "dnsfw.service").read_text(encoding="utf-8").replace("{executable}", str(program))
    _write(root / _UNIT, unit, anew=True)
    yield f"wrote /{_UNIT}"
    for name, wanted in zip(_MORE, _wanted(root), strict=True):
        if wanted:
            _write(root / _DROP_INS / name, (_HERE / name).read_text(encoding="utf-8"), anew=True)
            yield f"wrote /{_DROP_INS / name}: less confined, as the {name.removesuffix('.conf')} asks for it"
        else:
            (root / _DROP_INS / name).unlink(missing_ok=True)
    if _systemctl(root, "daemon-reload"):
        yield "to guard this host, now and from every boot on: systemctl enable --now dnsfw"
    else:
        yield "systemd does not run here: dnsfw up works without it"


def uninstall(root: Path = Path("/")) -> Iterator[str]:
    """End the service and remove what `install` made; a sentence for each thing. Twice is harmless."""
    if (root / _UNIT).exists():
        _systemctl(root, "disable", "--now", "dnsfw.service")
    for path in (_UNIT, *(_DROP_INS / name for name in _MORE)):
        if (root / path).exists():
            (root / path).unlink()
            yield f"removed /{path}"
    drop_ins = root / _DROP_INS
    if drop_ins.is_dir() and not any(drop_ins.iterdir()):
        drop_ins.rmdir()
    _systemctl(root, "daemon-reload")
    for account in _ACCOUNTS:
        if _is_listed(account, root / "etc/passwd"):
            _run("userdel", "--prefix", str(root), account)
            if _is_listed(account, root / "etc/group"):  # userdel removes it too, where login.defs(5) says so
                _run("groupdel", "--prefix", str(root), account)
            yield f"removed the user {account}"
    if (root / _SETTINGS).exists():
        yield f"left /{_SETTINGS}, which is yours"


def _own_program() -> Path:
    """The `dnsfw` beside the interpreter that runs us."""
    program = Path(sys.executable).with_name("dnsfw")
    if not program.exists():
        raise SetupError(f"There is no {program}, which the service would start.", "Install dnsfw as a package.")
    return program


def _make_user(root: Path, name: str) -> bool:
    if _is_listed(name, root / "etc/passwd"):
        return False
    options = ("--system", "--user-group", "--no-create-home", "--home-dir", "/", "--shell", "/usr/sbin/nologin")
    _run("useradd", "--prefix", str(root), *options, name)
    return True


def _is_listed(name: str, accounts: Path) -> bool:
    """Is it in passwd(5) or group(5)?"""
    return accounts.exists() and any(
        line.startswith(f"{name}:") for line in accounts.read_text(encoding="utf-8").splitlines()
    )


def _wanted(root: Path) -> tuple[bool, bool]:
    """Which of `_MORE`. Raises UsageError for a configuration or a policy with a mistake."""
    settings = config.effective(config.read_config(root / _SETTINGS / "config.toml")).settings
    path = root / settings.policy.removeprefix("/")
    surroundings = Surroundings(os.environ, ROOT, settings.repo)
    rules = valid_policy(path, surroundings).rules if settings.policy and path.exists() else ()
    return settings.lockdown != config.LockdownSettings(), any(map(_wants_more, rules))


def _wants_more(rule: Rule) -> bool:
    """URLs take the proxy, containers a look at other users' processes."""
    contained = (attribute.key is Key.IMAGE or attribute.value.startswith("@") for attribute in rule.who)
    return rule.kind is Kind.URL or any(contained)


def _write(path: Path, text: str, *, anew: bool) -> bool:
    if path.exists() and not anew:
        return False
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.new")
    partial.write_text(text, encoding="utf-8")
    partial.chmod(0o644)
    partial.replace(path)
    return True


def _systemctl(root: Path, *words: str) -> bool:
    """False where systemd is not what runs the host (sd_booted(3))."""
    if root != Path("/") or not Path("/run/systemd/system").is_dir():
        return False
    _run("systemctl", *words)
    return True


def _run(program: str, *arguments: str) -> None:
    found = shutil.which(program)
    if found is None:
        raise SetupError(f"The program {program} is missing.", "Install the package passwd.")
    said = subprocess.run([found, *arguments], capture_output=True, text=True, check=False)
    if said.returncode != 0:
        raise SetupError(f"{program} failed: {said.stderr.strip() or said.returncode}.")
