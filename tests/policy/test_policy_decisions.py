"""Decision tables: policy text and subjects in, action and reason out. The tables are decisions/*.txt.

A block is a policy, `---`, then cases; `===` ends it. A case is `SUBJECT [FACT…] => ACTION REASON [LINE]`, LINE being
that of the rule in its block. Subjects: `dns:NAME`, `tcp://ADDR:PORT`, `udp://…`, `icmp://ADDR`, `proto132://…` and
`METHOD URL`. Facts: `names=a,b`, `at=ADDR` (of a request, 192.0.2.1 unless said) and the owner's: `exe= arg= uid=
cgroup= container= image= step= action=`; with none of those the owner is unknown. Of the last four, `?` is unknown and
what isn't said isn't there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from policy import Flow, Owner, Proto, Query, Request, Subject, address, decide
from policy.parse import parse

TABLES = sorted(Path(__file__).parent.joinpath("decisions").glob("*.txt"))
PROTOS = {"tcp": Proto.TCP, "udp": Proto.UDP, "icmp": Proto.ICMP}
USERS = {"root": 0, "runner": 1001}


@dataclass(frozen=True)
class Case:
    policy: str
    subject: Subject
    owner: Owner | None
    names: tuple[str, ...]
    expected: str


def flow(url: str, proto: int) -> Flow:
    parts = urlsplit(url)
    dst = address(parts.hostname or "")
    return Flow(proto, address("10.9.9.9" if dst.version == 4 else "fd00::9"), 40000, dst, parts.port or 0)


def subject(text: str, at: str) -> Subject:
    if text.startswith("dns:"):
        return Query(text.removeprefix("dns:"), 1, Flow(17, address("10.9.9.9"), 40000, address("10.9.9.1"), 53))
    method, _, url = text.rpartition(" ")
    scheme, _, rest = url.partition("://")
    if not scheme.lower().startswith("http"):
        number = scheme.removeprefix("proto")
        return flow(url, int(number) if number.isdigit() else PROTOS[scheme])
    host, slash, path = rest.partition("/")
    port = re.search(r":(\d+)$", host)
    default = 443 if scheme.lower() == "https" else 80
    where = flow(f"tcp://{at}:{port[1] if port else default}", Proto.TCP)
    return Request(where, scheme, host, method, slash + path)


def known(fact: str) -> str | None:
    return None if fact == "?" else fact


def owner(facts: dict[str, str]) -> Owner | None:
    if not facts:
        return None
    return Owner(
        pid=100,
        start_time=1,
        uid=int(facts.get("uid", 1000)),
        exe=facts.get("exe", "/usr/bin/true"),
        argv=tuple(facts.get("arg", "true").split(",")),
        cgroup=facts.get("cgroup", "/user.slice"),
        container=known(facts.get("container", "")),
        image=known(facts.get("image", "")),
        step=known(facts.get("step", "")),
        action=known(facts.get("action", "")),
        complete="incomplete" not in facts,
    )


def case(policy: str, line: str) -> Case:
    left, _, expected = line.partition("=>")
    words = left.split()
    facts = dict(word.split("=", 1) for word in words if re.match(r"[a-z]+=", word))
    text = " ".join(word for word in words if not re.match(r"[a-z]+=", word))
    made = subject(text, facts.pop("at", "192.0.2.1"))
    names = tuple(filter(None, facts.pop("names", "").split(",")))
    if isinstance(made, Request) and not names:
        names = (re.sub(r":\d+$", "", made.host).lower().removesuffix("."),)
    return Case(policy, made, owner(facts), names, " ".join(expected.split()))


def cases() -> Iterator[tuple[str, Case]]:
    """Every case with where it stands."""
    for table in TABLES:
        number = 0
        for block in table.read_text().split("\n===\n"):
            policy, _, rows = block.partition("\n---\n")
            offset = policy.count("\n") + 2
            for line, row in enumerate(rows.split("\n"), start=number + offset + 1):
                if row.strip() and not row.startswith("#"):
                    yield f"{table.stem}:{line}", case(policy, row)
            number += block.count("\n") + 2


CASES = dict(cases())


@pytest.mark.parametrize("row", CASES.values(), ids=CASES.keys())
def test_decision(row: Case) -> None:
    policy = parse(row.policy, "table", uid_of=USERS.__getitem__)
    decision = decide(policy, row.subject, row.owner, row.names)
    line = f" {decision.rule.source.line}" if decision.rule and row.expected.split()[2:] else ""
    assert f"{decision.action} {decision.reason}{line}" == row.expected


def test_tables_are_large_and_two_sided() -> None:
    expected = [row.expected.split()[0] for row in CASES.values()]
    assert len(expected) >= 300
    assert expected.count("allow") + expected.count("inspect") >= 100
    assert expected.count("deny") >= 100
