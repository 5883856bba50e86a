"""The service: what installing makes and removing takes away, the unit's hardening, and the word to its manager."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from dnsfw.errors import SetupError, UsageError
from dnsfw.host.notify import Notify, Watched, watchdog_interval
from dnsfw.service.install import install, uninstall

UNIT = "etc/systemd/system/dnsfw.service"
LOCKDOWN = "etc/systemd/system/dnsfw.service.d/lockdown.conf"
PROGRAM = Path("/bin/true")


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A host's files, so far as they are needed."""
    (tmp_path / "etc").mkdir()
    for name in ("passwd", "group", "shadow", "gshadow"):
        (tmp_path / "etc" / name).write_text("root:x:0:0:root:/root:/bin/sh\n" if name == "passwd" else "root:x:0:\n")
    (tmp_path / "etc/login.defs").write_text("SYS_UID_MIN 101\nSYS_UID_MAX 999\nSYS_GID_MIN 101\nSYS_GID_MAX 999\n")
    return tmp_path


def files(root: Path) -> dict[str, str]:
    """But for the backups that useradd keeps."""
    found = (path for path in root.rglob("*") if path.is_file() and not path.name.endswith("-"))
    return {str(path.relative_to(root)): path.read_text() for path in found}


@pytest.mark.kernel("root")
def test_installing_makes_users_unit_and_settings_once_and_removing_takes_them_away(host: Path) -> None:
    machine = Path("/etc/passwd").read_text()
    before = files(host)
    said = list(install(host, PROGRAM))
    made = files(host)
    entries = re.findall(r"^(dnsfw\S*?):x:(\d+):\d+:.*:/:/usr/sbin/nologin$", made["etc/passwd"], re.MULTILINE)
    assert [name for name, _ in entries] == ["dnsfw", "dnsfw-proxy"]
    assert all(1 <= int(uid) <= 999 for _, uid in entries)
    assert len(set(entries)) == len({uid for _, uid in entries})
    assert "ExecStart=/bin/true up --quiet\n" in made[UNIT]
    assert LOCKDOWN not in made
    assert any("enable" in sentence or "systemd does not run" in sentence for sentence in said)
    (host / "etc/dnsfw/dnsfw.policy").write_text("example.com\n")
    assert len(list(install(host, PROGRAM))) == 2  # the unit again, and what to do next
    assert files(host) == {**made, "etc/dnsfw/dnsfw.policy": "example.com\n"}
    for _ in range(2):
        list(uninstall(host))
        after = files(host)
        assert {name: text for name, text in after.items() if name.startswith("etc/dnsfw/")} == {
            "etc/dnsfw/dnsfw.policy": "example.com\n",
            "etc/dnsfw/config.toml": made["etc/dnsfw/config.toml"],
        }
        assert {name: text for name, text in after.items() if not name.startswith("etc/dnsfw/")} == before
    assert Path("/etc/passwd").read_text() == machine


@pytest.mark.kernel("root")
def test_the_first_configuration_is_valid_and_lockdown_gets_its_own_drop_in(host: Path) -> None:
    list(install(host, PROGRAM))
    settings = host / "etc/dnsfw/config.toml"
    settings.write_text(settings.read_text() + '\n[lockdown]\nsudo = "games"\n')
    list(install(host, PROGRAM))
    assert (host / LOCKDOWN).exists()
    settings.write_text("[lockdown]\nsudo = 3\n")
    with pytest.raises(UsageError, match=r"lockdown\.sudo"):
        list(install(host, PROGRAM))
    settings.write_text('policy = "/etc/dnsfw/dnsfw.policy"\n')
    list(install(host, PROGRAM))
    assert not (host / LOCKDOWN).exists()


@pytest.mark.kernel("root")
@pytest.mark.parametrize(
    ("policy", "more"),
    [
        ("example.com\n", False),
        ("https://example.com/a\n", True),
        ("example.com image=nginx\n", True),
        ("example.com cgroup=@container\n", True),
        ("example.com exe=/bin/x\n", False),
    ],
)
def test_the_unit_is_as_confined_as_the_policy_lets_it(host: Path, policy: str, *, more: bool) -> None:
    list(install(host, PROGRAM))
    (host / "etc/dnsfw/dnsfw.policy").write_text(policy)
    list(install(host, PROGRAM))
    assert (host / "etc/systemd/system/dnsfw.service.d/policy.conf").exists() == more


@pytest.mark.kernel("root")
def test_root_starts_no_program_that_others_can_change(host: Path) -> None:
    program = host / "dnsfw"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o777)
    with pytest.raises(SetupError, match="can be changed by everybody"):
        list(install(host, program))
    assert not (host / UNIT).exists()


def analysed(host: Path, *words: str) -> str:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("this machine lacks systemd-analyze")
    list(install(host, PROGRAM))
    command = ["systemd-analyze", *words, str(host / UNIT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@pytest.mark.kernel("root")
def test_the_unit_is_hardened(host: Path) -> None:
    said = analysed(host, "security", "--offline=true", "--no-pager")
    level = re.search(r"Overall exposure level for dnsfw\.service: ([\d.]+)", said)
    assert level is not None, said
    assert float(level[1]) < 3.0


@pytest.mark.kernel("root")
def test_systemd_finds_nothing_wrong_with_the_unit(host: Path) -> None:
    assert analysed(host, "verify", "--man=no") == ""


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": ""}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-3"}, None),
        ({"WATCHDOG_USEC": "60000000"}, 20.0),
    ],
    ids=str,
)
def test_how_often_a_manager_wants_to_hear(environ: dict[str, str], interval: float | None) -> None:
    assert watchdog_interval(environ) == interval


def heard(manager: socket.socket) -> list[str]:
    found = []
    while True:
        try:
            found.append(manager.recv(4096).decode())
        except BlockingIOError:
            return found


@pytest.mark.parametrize("abstract", [False, True])
def test_a_manager_hears_that_the_guard_lives_as_long_as_it_does(tmp_path: Path, *, abstract: bool) -> None:
    lives: Sequence[bool] = [True, False]
    guard = SimpleNamespace(stop_wanted=False, tend=lambda: None, reload=lambda: None, patience=lambda: 7.0)
    address = f"@{tmp_path}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.setblocking(False)
        manager.bind("\0" + address[1:] if abstract else address)
        for alive in lives:
            guard.lively = lambda _, alive=alive: alive
            watched = Watched(guard, Notify({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "3000000"}))
            watched.tend()
            watched.tend()  # too early for another
            assert heard(manager) == (["WATCHDOG=1"] if alive else [])
            assert 0 < (watched.patience() or 0) <= 1.0
        watched.stop_wanted = True
        assert guard.stop_wanted


def test_without_a_manager_or_with_a_deaf_one_nothing_happens(tmp_path: Path) -> None:
    for environ in ({}, {"NOTIFY_SOCKET": str(tmp_path / "nobody")}):
        Notify(environ).say("READY=1")
