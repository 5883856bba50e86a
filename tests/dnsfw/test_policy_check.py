"""dnsfw check: what it finds, where, in which form, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dnsfw.errors import UsageError
from dnsfw.machine.privilege import calling_user
from dnsfw.policies.reading import Surroundings, load_policy
from tests.dnsfw.commands import dnsfw
from tests.fuzz.fuzz_policy import CORPUS

ROOT = Path(__file__).parents[2]
FILES = sorted(CORPUS.iterdir())


def found(text: str | bytes, *options: str) -> list[str]:
    """`LINE:COLUMN severity reason` of every finding but those about what can't be enforced yet."""
    findings = json.loads(dnsfw("check", "--format", "json", *options, "-", stdin=text).out)["findings"]
    return [f"{one['line']}:{one['column']} {one['severity']} {one['reason']}" for one in findings]


def test_all_errors_of_a_file_with_line_column_caret_reason_and_suggestion(tmp_path: Path) -> None:
    policy = tmp_path / "p"
    policy.write_text("github.com\n/repos/*\nx.example exee=/bin/a\n\ta..b\n")
    said = dnsfw("check", policy)
    assert said.status == 1
    assert said.out == (
        f"{policy}:2:1: error: a path rule needs a URL base\n"
        "    /repos/*\n"
        "    ^\n"
        "    put a `[https://…]` header above it\n"
        f"{policy}:3:11: error: not understood\n"
        "    x.example exee=/bin/a\n"
        "              ^\n"
        "    did you mean `exe=`?\n"
        f"{policy}:4:2: error: a label is empty\n"
        "    \ta..b\n"
        "    \t^\n"
        "policy not valid: 3 errors\n"
    )


@pytest.mark.parametrize(
    ("text", "findings"),
    [
        ("a.example\n!b.example\n10.0.0.0/8:*\nhttps://c.example/x/*", []),
        # can never match; covered; pointless beside a host rule
        ("!*.example.com\na.example.com", ["2:1 warning never allows anything"]),
        ("a.example\na.example:443", ["2:1 warning covered by"]),
        ("https://a.example/x\na.example", ["1:1 warning pointless"]),
        # too wide
        ("*.com", ["1:1 warning every name below `.com`"]),
        ("*.co.uk", ["1:1 warning `co.uk` is a public suffix"]),
        ("*.github.io", ["1:1 warning `github.io` is a public suffix"]),
        ("a*.co.uk", ["1:1 warning `co.uk` is a public suffix"]),
        ("a*.com", ["1:1 warning `com` is a public suffix"]),
        ("*.example.co.uk\nexample.co.uk", []),
        ("!*.co.uk", []),
        ("192.0.2.1/icmp", []),
        ("192.0.2.1:* exe=/bin/ping", []),
        ("0.0.0.0/0", ["1:1 warning 0.0.0.0/0 is a large part"]),
        # nobody can satisfy
        ("a.example exe=git", ["1:1 warning nobody can satisfy `exe=git`"]),
        ("a.example exe=*/git cgroup=@docker", []),
        ("a.example cgroup=user.slice", ["1:1 warning nobody can satisfy `cgroup=user.slice`"]),
        ("a.example exe=/a exe=/b", ["1:1 warning nobody can satisfy"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_warnings(text: str, findings: list[str]) -> None:
    said = [one for one in found(text) if " note " not in one]
    assert len(said) == len(findings), said
    assert all(one.startswith(wanted) for one, wanted in zip(said, findings, strict=True)), said


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("a.example/icmp exe=/bin/ping", "1:1 note allows nothing before Linux 6.4"),
        ("!192.0.2.1/icmp user=0", "1:1 note denies everybody's ping before Linux 6.4"),
    ],
)
def test_whose_ping_it_is_not_every_kernel_says(text: str, note: str) -> None:
    assert any(one.startswith(note) for one in found(text))


@pytest.mark.parametrize(
    ("text", "findings"),
    [
        ("*.a.example", ["1:1 note any name below `a.example`, however deep, but not `a.example` itself"]),
        ("*.a.example\na.example", []),
        ("*.a.example\n*.example\nexample", ["1:1 warning covered by", "2:1 warning every name below `.example`"]),
        ("*cdn.a.example", ["1:1 warning a part of one label: `anycdn.a.example` is in it, `a.cdn.a.example` is not"]),
        ("cdn*.a.example", []),
        ("*.cdn*.a.example", []),
        ("https://a.example/v*", ["1:1 note `/v*` ends within its last segment"]),
        ("!https://a.example/v*\na.example", ["1:1 warning `/v*` ends within its last segment"]),
        ("https://a.example/v/*", []),
        ("!a.x.example\nx.example\n*.x.example", ["1:1 note leaves what is below it, like `below.a.x.example`, to"]),
        ("!*.x.example\nx.example", ["1:1 note leaves `x.example` itself to <stdin>:2, which allows it"]),
        ("!d*.x.example\nx.example\n*.x.example", ["1:1 note leaves what is below it, like `below.dx.x.example`, to"]),
        ("!x.example", []),
        ("!https://a.x.example/y\nx.example\n*.x.example", []),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_depth_that_may_surprise_is_pointed_out(text: str, findings: list[str]) -> None:
    said = found(text)
    assert len(said) == len(findings), said
    assert all(one.startswith(wanted) for one, wanted in zip(said, findings, strict=True)), said


@pytest.mark.parametrize(
    ("text", "findings"),
    [
        ("[:22]\na.example\n\nb.example", ["4:1 warning `[:22]` of line 1 holds here too, beyond the empty line"]),
        ("[:22]\n\na.example\nb.example", []),
        ("[:22]\na.example\n# b\nb.example", []),
        ("[:22]\na.example\n\n[]\nb.example", []),
        ("[:22]\na.example\n\n[:22]\nb.example", []),
        ("[:22]\na.example\n\nb.example:80", []),  # takes nothing from the header
        ("[:22]\na.example\n\n[::1]:80\nb.example", ["5:1 warning `[:22]` of line 1"]),
        ("[:22]\na.example\n\nb.example\n\nc.example", ["4:1 warning"]),  # once is enough
        ("[exe=/a]\na.example\n\n  b.example", ["4:3 warning `[exe=/a]` of line 1"]),
        ("[https://a.example]\n/x\n\n/y", ["4:1 warning `[https://a.example]` of line 1"]),
        ("[exe=/a]\n@include ghcr", ["2:1 warning the header of line 1 doesn't reach into what is taken in here"]),
        ("[exe=/a]\na.example\n[]\n@include ghcr", []),
    ],
)
def test_headers_that_reach_further_or_less_far_than_it_looks(text: str, findings: list[str]) -> None:
    said = found(text)
    assert len(said) == len(findings), said
    assert all(one.startswith(wanted) for one, wanted in zip(said, findings, strict=True)), said


def test_headers_of_included_files_are_looked_at_too(tmp_path: Path) -> None:
    (tmp_path / "p").write_text("@include base")
    (tmp_path / "base").write_text("[:22]\na.example\n\nb.example\n")
    assert f"{tmp_path / 'base'}:4:1: warning: `[:22]` of line 1" in dnsfw("check", tmp_path / "p").out


@pytest.mark.parametrize(
    ("text", "options", "status"),
    [
        ("a.example", (), 0),
        ("a.example", ("--strict",), 0),
        ("*.a.example", ("--strict",), 0),  # a note is worth knowing, no more
        ("*.com", (), 0),
        ("*.com", ("--strict",), 1),
        ("a..b", (), 1),
        ("", (), 0),
        ("a.example", ("--format", "xml"), 2),
        ("a.example", ("--repo", "no-slash"), 2),
    ],
)
def test_exit_status(text: str, options: tuple[str, ...], status: int) -> None:
    assert dnsfw("check", *options, "-", stdin=text).status == status


def test_a_file_that_cannot_be_read_is_a_mistake_in_the_call(tmp_path: Path) -> None:
    said = dnsfw("check", tmp_path / "none")
    assert said.status == 2
    assert "No such file" in said.err


def test_no_file_at_all() -> None:
    assert dnsfw("check").status == 2


def test_several_files(tmp_path: Path) -> None:
    (tmp_path / "good").write_text("a.example")
    (tmp_path / "bad").write_text("a..b")
    said = dnsfw("check", tmp_path / "good", tmp_path / "bad")
    assert said.status == 1
    assert said.out.endswith("2 policies not valid: 1 error\n")


def test_annotations_for_github(tmp_path: Path) -> None:
    policy = tmp_path / "a,b:c%"
    policy.write_text("a..b\n")
    place = str(policy).replace("%", "%25").replace(":", "%3A").replace(",", "%2C")
    said = dnsfw("check", "--format", "github", policy)
    assert said == (1, f"::error file={place},line=1,col=1,title=dnsfw::a label is empty\n", "")


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
def test_check_finds_whatever_enforcing_would_refuse_and_nothing_else(tmp_path: Path, file: Path) -> None:
    """Each line of the fuzzer's corpus by itself, and all of them together."""
    lines = file.read_bytes().split(b"\n")
    for number, text in enumerate([*lines, file.read_bytes()]):
        policy = tmp_path / f"{number}.policy"
        policy.write_bytes(text)
        found = json.loads(dnsfw("check", "--format", "json", policy).out)["findings"]
        told = [one for one in found if one["severity"] == "error" or "refuse a policy" in one["reason"]]
        assert bool(told) == refused(policy), text


def refused(policy: Path) -> bool:
    try:
        load_policy(policy, Surroundings({"PATH": ""}, calling_user({})))
    except UsageError:
        return True
    return False


def on_a_terminal(*argv: str) -> bytes:
    """What a program prints on a terminal, all of it."""
    ours, theirs = os.openpty()
    with os.fdopen(ours, "rb", buffering=0) as screen:
        environment = {**os.environ, "TERM": "xterm", "PYTHONPATH": str(Path(__file__).parents[2])}
        environment.pop("NO_COLOR", None)
        with subprocess.Popen(argv, stdout=theirs, stdin=subprocess.DEVNULL, env=environment):
            os.close(theirs)
            shown = b""
            while part := _read(screen):
                shown += part
    return shown


def _read(screen: Any) -> bytes:
    try:
        return bytes(screen.read(4096))
    except OSError:  # EIO: nobody has the other end any more
        return b""


def test_colour_only_on_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "p").write_text("a..b")
    argv = (sys.executable, "-m", "dnsfw.cli", "check", str(tmp_path / "p"))
    assert b"\x1b[31m" in on_a_terminal(*argv)
    assert "\x1b" not in dnsfw("check", tmp_path / "p").out


def test_nothing_in_a_policy_steers_the_terminal() -> None:
    said = dnsfw("check", "-", stdin="a.example \x1b[31mx\n")
    assert said.status == 1
    assert "\x1b" not in said.out


def test_many_rules_for_one_host_take_no_square_of_time() -> None:
    text = "\n".join(f"a.example:{port}" for port in range(1, 10_001))
    assert dnsfw("check", "-", stdin=text).status == 0  # within pytest's own limit; a square takes minutes


def test_enforcing_loads_none_of_this() -> None:
    """`dnsfw run` starts fast and stays small."""
    tools = {
        "yaml",
        "publicsuffixlist",
        "dnsfw.policies.check",
        "dnsfw.policies.explain",
        "dnsfw.policies.format",
        "dnsfw.policies.registries",
        "policy.lint",
    }
    enforcing = "dnsfw.cli, dnsfw.supervisor.run, dnsfw.supervisor.up, dnsfw.engine.main"
    script = f"import sys, {enforcing}; print({tools} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_more_hosts_with_urls_than_a_certificate_holds_are_an_error_of_check_and_of_enforcing(tmp_path: Path) -> None:
    text = "a.example\n" + "".join(f"https://host-{number}.example/x\n" for number in range(2000))
    said = dnsfw("check", "-", stdin=text)
    assert said.status == 1
    assert "<stdin>:2:1: error: rules with URLs name 2000 hosts: too many" in said.out
    (tmp_path / "policy").write_text(text)
    with pytest.raises(UsageError, match="name 2000 hosts: too many"):
        load_policy(tmp_path / "policy", Surroundings({}, calling_user({})))
