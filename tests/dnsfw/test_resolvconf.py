"""The host's resolver configuration: pointed at us, and given back to the byte."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnsfw.errors import SetupError
from dnsfw.host.resolvconf import BACKUP, Host, give_back, guarded_resolv_conf, pointed_here


@pytest.mark.parametrize(
    ("host", "kept"),
    [
        ("nameserver 192.0.2.1\n", ""),
        (
            "# by hand\nsearch corp.example example\nnameserver 192.0.2.1\nnameserver ::1\noptions ndots:2 edns0\n",
            "search corp.example example\noptions ndots:2 edns0\n",
        ),
        ("domain corp.example\nsortlist 192.0.2.0\n", "domain corp.example\n"),
        ("", ""),
        ("searching\nnameserverx\n", ""),
    ],
    ids=["server", "search and options", "domain", "empty", "other words"],
)
def test_the_resolv_conf_of_a_guarded_command(host: str, kept: str) -> None:
    assert guarded_resolv_conf(host) == f"# Made by dnsfw.\nnameserver 127.0.0.1\n{kept}"


@settings(deadline=None)  # a busy machine proves nothing
@given(st.text())
def test_it_names_one_server_whatever_the_hosts_says(host: str) -> None:
    servers = [line for line in guarded_resolv_conf(host).splitlines() if line.startswith("nameserver")]
    assert servers == ["nameserver 127.0.0.1"]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A tree like a host's, with nothing in it but its folders."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "state").mkdir()
    return Host(tmp_path)


def as_file(host: Host) -> None:
    host.resolv_conf.write_bytes(b"search corp.example\nnameserver 192.0.2.1\n\xff\n")
    host.resolv_conf.chmod(0o640)


def as_link(host: Host) -> None:
    (host.root / "etc/stub.conf").write_text("search corp.example\nnameserver 127.0.0.53\n", encoding="ascii")
    host.resolv_conf.symlink_to("../etc/stub.conf")


def as_dangling_link(host: Host) -> None:
    host.resolv_conf.symlink_to("/nowhere/resolv.conf")


def as_nothing(_host: Host) -> None:
    pass


def seen(host: Host) -> tuple[object, ...]:
    """All that could tell a difference."""
    path = host.resolv_conf
    if path.is_symlink():
        return ("link", path.readlink())
    return ("file", path.read_bytes(), path.stat().st_mode) if path.exists() else ("nothing",)


FORMS = pytest.mark.parametrize("form", [as_file, as_link, as_dangling_link, as_nothing])


@FORMS
def test_it_names_us_meanwhile_and_is_as_it_was_afterwards(host: Host, form: object) -> None:
    assert callable(form)
    form(host)
    before, files = seen(host), sorted(host.root.rglob("*"))
    with pointed_here(host.root / "state", host):
        assert "nameserver 127.0.0.1\n" in host.resolv_conf.read_text("utf-8")
        assert ("search corp.example" in host.resolv_conf.read_text("utf-8")) == (form in (as_file, as_link))
    assert seen(host) == before
    assert sorted(host.root.rglob("*")) == files


@FORMS
def test_whoever_clears_up_after_a_sigkill_gives_it_back_and_twice_is_harmless(host: Host, form: object) -> None:
    assert callable(form)
    form(host)
    before = seen(host)
    killed = pointed_here(host.root / "state", host)  # never left
    killed.__enter__()
    assert seen(host) != before
    give_back(host.root / "state", host)
    assert seen(host) == before
    give_back(host.root / "state", host)
    assert seen(host) == before


def test_killed_while_it_was_written_down_nothing_was_changed_yet(host: Host) -> None:
    as_file(host)
    before = seen(host)
    (host.root / "state" / BACKUP).write_bytes(b'{"link":')
    give_back(host.root / "state", host)
    assert seen(host) == before
    assert not (host.root / "state" / BACKUP).exists()


def test_systemd_resolved_is_told_and_untold(host: Host) -> None:
    as_link(host)
    (host.root / "run/systemd/resolve").mkdir(parents=True)
    with pointed_here(host.root / "state", host):
        assert "DNS=127.0.0.1\nDomains=~.\n" in host.drop_in.read_text("ascii")
    assert not host.drop_in.exists()


def test_a_folder_in_its_place_is_an_error_in_words(host: Host) -> None:
    host.resolv_conf.mkdir()
    with pytest.raises(SetupError, match=r"resolv\.conf can't be read"), pointed_here(host.root / "state", host):
        pass
