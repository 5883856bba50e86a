"""What is valid, says something, and says something else than its author may think.

Law: only `check` asks. Beyond policy/lint.py this knows the Public Suffix List, and the text between the rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from ipaddress import IPv4Address

from publicsuffixlist import PublicSuffixList

from dnsfw.policies.finding import Finding, Severity, at
from policy import Action, Flow, Kind, Policy, PolicyInvalid, Proto, Query, Rule, Source, decide
from policy.names import Pattern
from policy.rules import ICMP, Key

type Parse = Callable[[str], Policy]
"""Lines of policy to rules, as the file that they stand in is parsed. Raises PolicyInvalid."""

# Not every kernel says who sends an echo request; elsewhere its owner is unknown.
_WHOSE_PING = {
    Action.ALLOW: "allows nothing before Linux 6.4: there it can't be told whose ping it is",
    Action.DENY: "denies everybody's ping before Linux 6.4: there it can't be told whose it is",
}
_CLIENT = Flow(Proto.UDP, IPv4Address("192.0.2.1"), 40000, IPv4Address("192.0.2.2"), 53)


def surprises(policy: Policy) -> Iterator[Finding]:
    """Findings about the rules, in their order."""
    for rule in policy.rules:
        if isinstance(rule.destination, Pattern):
            yield from _host(rule, rule.destination, policy)
        if rule.url is not None and _ends_within(rule.url.path.text):
            yield at(
                rule.source,
                Severity.WARNING if rule.action is Action.DENY else Severity.NOTE,
                f"`{rule.url.path}` ends within its last segment: nothing below that is in it",
                "`/*` at the end is any rest",
            )
        if rule.who and rule.protos == ICMP:
            yield at(rule.source, Severity.NOTE, _WHOSE_PING[rule.action], "`dnsfw status` says how owners are known")
        yield from _nobody(rule)


@cache
def _suffixes() -> PublicSuffixList:
    return PublicSuffixList(accept_unknown=False)


def _host(rule: Rule, host: Pattern, policy: Policy) -> Iterator[Finding]:
    wild = host.deep or bool(host.label)
    if rule.action is Action.DENY:
        yield from _open_below(rule, host, policy)
    elif wild and _suffixes().is_public(host.base) and ("." in host.base or not host.deep):
        yield at(
            rule.source,
            Severity.WARNING,
            f"`{host.base}` is a public suffix: anybody can have a name below it",
            "name the hosts one by one",
        )
    elif host.deep and not host.label and not any(policy.allows.by_name(host.base)):
        reason = f"any name below `{host.base}`, however deep, but not `{host.base}` itself"
        yield at(rule.source, Severity.NOTE, reason, f"if that is meant too: `{host.base}`")
    if host.label.startswith("*") and not host.deep:
        part = host.label.strip("*")
        yield at(
            rule.source,
            Severity.WARNING,
            f"a part of one label: `any{part}.{host.base}` is in it, `a.{part}.{host.base}` is not",
            f"`*.{part}.{host.base}` for the names below",
        )


def _open_below(rule: Rule, host: Pattern, policy: Policy) -> Iterator[Finding]:
    """A deny rule beside which a name stays open that its author may think is denied too."""
    if rule.kind is Kind.URL:
        return
    label = host.label.replace("*", "x")
    near = [host.base] if host.deep and not label else []
    if not host.deep:
        near.append(".".join(filter(None, ("below", label, host.base))))
    for name in near:
        decision = decide(policy, Query(name, 1, _CLIENT), None, ())
        if decision.action is not Action.DENY and decision.rule is not None:
            which = f"`{name}` itself" if name == host.base else f"what is below it, like `{name}`,"
            yield at(rule.source, Severity.NOTE, f"leaves {which} to {decision.rule.source}, which allows it")


def _ends_within(path: str) -> bool:
    last = path.rpartition("/")[2]
    return last.endswith("*") and last != "*"


_BEGINNINGS = {Key.EXE: ("/", "*"), Key.CGROUP: ("/", "*", "@")}


def _nobody(rule: Rule) -> Iterator[Finding]:
    """Attributes that no process has: the kernel names executables and cgroups by absolute paths."""
    for attribute in rule.who:
        beginnings = _BEGINNINGS.get(attribute.key)
        if beginnings and not attribute.value.startswith(beginnings):
            said = f"{attribute.key}={attribute.value}"
            reason = f"nobody can satisfy `{said}`: it is compared with an absolute path"
            yield at(rule.source, Severity.WARNING, reason, f"`{attribute.key}=*/{attribute.value}`, or the whole path")


def headers(text: str, file: str, parse: Parse) -> Iterator[Finding]:
    """Headers of one valid file that hold for more, or for less, than it looks: beyond an empty line; at an include."""
    header: Source | None = None
    ruled = gap = told = False
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
        here = Source(file, number, len(line) - len(line.lstrip()) + 1, line)
        word = line.strip()
        if not word:
            gap = ruled
        elif word.startswith("[") and not parse(line).rules:
            header = None if word[1:].lstrip().startswith("]") else here
            ruled = gap = told = False
        elif header is None or word.startswith("#"):
            continue
        elif word.startswith("@"):
            reason = f"the header of line {header.line} doesn't reach into what is taken in here"
            yield at(here, Severity.WARNING, reason, "write `[]` above, or the rules themselves")
        elif gap and not told and _inherits(line, header, parse):
            told = True
            reason = f"`{header.text.strip()}` of line {header.line} holds here too, beyond the empty line"
            yield at(here, Severity.WARNING, reason, "repeat it, or end it with `[]`")
        else:
            ruled = True


def _inherits(line: str, header: Source, parse: Parse) -> bool:
    """Does the rule take anything from the header?"""
    try:
        alone = parse(line).rules
    except PolicyInvalid:
        return True
    return alone != parse(f"{header.text}\n{line}").rules
