"""A rule as text: the one canonical line that parses to the same rule, under no header.

Law: render is the inverse of parse, so whatever rules.py can hold and a line can say is said here.
"""

from __future__ import annotations

import re

from policy.rules import ICMP, SCHEME_PORTS, TCP, UDP, Attribute, Kind, Rule, Url
from policy.values import Action

_BARE = re.compile(r"[^\s\"`\[\]#]+")
_READS = frozenset({"GET", "HEAD"})


def render(rule: Rule) -> str:
    """The rule's line. Placeholders and user names stay what they were replaced by."""
    deny = "!" if rule.action is Action.DENY else ""
    within = [f"within={'|'.join(map(str, rule.within))}"] if rule.within else []
    return " ".join([deny + _target(rule), *map(render_attribute, rule.who), *sorted(rule.flags), *within])


def _target(rule: Rule) -> str:
    if rule.url is not None:
        return _url(rule, rule.url)
    if rule.kind is Kind.DNS:
        return f"dns:{rule.destination}"
    transport = _transport(rule)
    place = str(rule.destination)
    if rule.kind is Kind.ADDRESS:
        place = place.removesuffix("/32" if "." in place else "/128")
    if ":" in place and transport:
        place = f"[{place}]"
    return place + transport


def _transport(rule: Rule) -> str:
    if rule.protos == ICMP:
        return "/icmp"
    allowing = rule.action is Action.ALLOW
    unsaid = (TCP, frozenset({443})) if allowing else (None, None)
    if (rule.protos, rule.ports) == unsaid:
        return ""
    proto = "/udp" if rule.protos == UDP else "/tcp" if rule.protos == TCP and not allowing else ""
    return _ports(rule.ports) + proto


def _ports(ports: frozenset[int] | None) -> str:
    return ":*" if ports is None else ":" + "|".join(map(str, sorted(ports)))


def _url(rule: Rule, url: Url) -> str:
    allowing = rule.action is Action.ALLOW
    methods = "" if url.methods == (_READS if allowing else None) else _methods(url.methods) + " "
    ports = "" if rule.ports == (frozenset({SCHEME_PORTS[url.scheme]}) if allowing else None) else _ports(rule.ports)
    return f"{methods}{url.scheme}://{rule.destination}{ports}{url.path}"


def _methods(methods: frozenset[str] | None) -> str:
    return "*" if methods is None else "|".join(sorted(methods))


def render_attribute(attribute: Attribute) -> str:
    """One attribute, quoted only where it must be."""
    index = "" if attribute.position is None else f"[{attribute.position}]"
    return f"{attribute.key}{index}={_value(attribute)}"


def _value(attribute: Attribute) -> str:
    text = attribute.value
    wild = "*" in text
    if _BARE.fullmatch(text) and not (wild and attribute.literal):
        return text
    return f'"{text}"' if attribute.literal and '"' not in text else f"`{text}`"
