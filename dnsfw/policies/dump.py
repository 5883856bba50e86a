"""A policy as JSON, for other programs: docs/policy.schema.json describes it.

Law: records and their making, nothing else. `version` changes when a field's meaning does.
"""

from __future__ import annotations

from inspect import cleandoc
from typing import Literal

import msgspec

from policy import Attribute, Policy, Proto, Rule, render
from policy.names import Pattern

VERSION = 1


class SourceRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the rule was written; `line` and `column` count from 1. What is not a file begins with `@`."""

    file: str
    line: int
    column: int
    text: str


class AttributeRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One condition on the process. In `value`, `*` is any run of characters unless `literal`. `position` is the N of
    `arg[N]`."""

    key: Literal["exe", "arg", "user", "cgroup", "image", "step", "action"]
    value: str
    literal: bool
    position: int | None


class UrlRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The URL part of a rule. `methods` null is every method."""

    scheme: Literal["http", "https"]
    path: str
    methods: tuple[str, ...] | None


class RuleRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One rule, with headers, includes and placeholders worked in.

    `host` is a name or pattern, `network` an address with its prefix length; one of them is null. `protocols` and
    `ports` null are all of them, [] none: the rule gives no right to connect. `line` is the rule in canonical form,
    true under no header.
    """

    action: Literal["allow", "deny"]
    kind: Literal["host", "address", "url", "dns"]
    host: str | None
    network: str | None
    protocols: tuple[Literal["tcp", "udp", "icmp", "icmpv6"], ...] | None
    ports: tuple[int, ...] | None
    url: UrlRecord | None
    attributes: tuple[AttributeRecord, ...]
    flags: tuple[Literal["passthrough", "insecure", "private", "no-sni"], ...]
    within: tuple[str, ...]
    line: str
    source: SourceRecord


class PolicyRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole policy. The order of rules means nothing: a deny rule wins over any allow rule."""

    version: Literal[1]
    rules: tuple[RuleRecord, ...]


def as_json(policy: Policy) -> str:
    """The policy, indented."""
    encoded = msgspec.json.encode({"version": VERSION, "rules": [record(rule) for rule in policy.rules]})
    return msgspec.json.format(encoded, indent=2).decode()


def schema() -> str:
    """The JSON Schema (2020-12) of `as_json`'s output."""
    made = {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(PolicyRecord)}
    for definition in made["$defs"].values():
        definition["description"] = cleandoc(definition["description"])
    return msgspec.json.format(msgspec.json.encode(made), indent=2).decode() + "\n"


def record(rule: Rule) -> RuleRecord:
    """The rule as a record."""
    named = isinstance(rule.destination, Pattern)
    protocols = None if rule.protos is None else [Proto(number).name.lower() for number in sorted(rule.protos)]
    fields = {
        "action": rule.action,
        "kind": rule.kind,
        "host": str(rule.destination) if named else None,
        "network": None if named else str(rule.destination),
        "protocols": protocols,
        "ports": None if rule.ports is None else sorted(rule.ports),
        "url": _url(rule),
        "attributes": list(map(_attribute, rule.who)),
        "flags": sorted(rule.flags),
        "within": list(map(str, rule.within)),
        "line": render(rule),
        "source": SourceRecord(rule.source.file, rule.source.line, rule.source.column, rule.source.text),
    }
    return msgspec.convert(fields, RuleRecord)


def _url(rule: Rule) -> UrlRecord | None:
    if rule.url is None:
        return None
    methods = None if rule.url.methods is None else sorted(rule.url.methods)
    return msgspec.convert({"scheme": rule.url.scheme, "path": str(rule.url.path), "methods": methods}, UrlRecord)


def _attribute(attribute: Attribute) -> AttributeRecord:
    return msgspec.convert(attribute, AttributeRecord, from_attributes=True)
