"""What is valid and yet probably not meant.

Law: pure, and never wrong about a rule: a remark is only made where no subject can disprove it. Nothing here changes
what is decided.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from itertools import islice

from policy.index import Policy
from policy.names import Pattern
from policy.rules import Flag, Key, Kind, Rule
from policy.values import Action

_LOOKED_AT = 256
_WIDE_V4, _WIDE_V6 = 8, 16  # networks this large are more than any one service has


@dataclass(frozen=True, slots=True)
class Remark:
    """Something about `rule` that its author should look at."""

    rule: Rule
    reason: str
    hint: str = ""


def lint(policy: Policy) -> tuple[Remark, ...]:
    """Every remark on the policy, in the order of its rules."""
    order = {id(rule): place for place, rule in enumerate(policy.rules)}
    remarks: list[Remark] = []
    for rule in policy.rules:
        remarks += _alone(rule)
        remarks += _beside(rule, policy, order)
    return tuple(remarks)


def _alone(rule: Rule) -> Iterator[Remark]:
    """What a rule shows by itself."""
    place = rule.destination
    if rule.action is Action.ALLOW and isinstance(place, Pattern) and place.deep and "." not in place.base:
        yield Remark(rule, f"every name below `.{place.base}`, whoever owns it", "name the hosts, or their own domain")
    if rule.action is Action.ALLOW and _wide(place):
        yield Remark(rule, f"{place} is a large part of the internet")
    if clash := _clash(rule):
        yield Remark(rule, f"nobody can satisfy {clash}")
    if rule.action is Action.DENY and rule.kind is Kind.HOST and rule.ports is not None:
        yield Remark(
            rule, "denies the name's resolution, so no port is of use", "allow the ports that you want instead"
        )


def _wide(place: Pattern | IPv4Network | IPv6Network) -> bool:
    if isinstance(place, Pattern) or place.is_private:
        return False
    return place.prefixlen < (_WIDE_V4 if place.version == 4 else _WIDE_V6)


def _clash(rule: Rule) -> str:
    """Two attributes that no process has at once, in words; "" if there are none."""
    for place, one in enumerate(rule.who):
        for other in rule.who[place + 1 :]:
            single = one.key is not Key.ARG or one.position is not None
            same = (one.key, one.position) == (other.key, other.position)
            if single and same and one.literal and other.literal and one.value != other.value:
                return f"`{one.key}=` {one.value} and {other.value} at once"
    keys = {(attribute.key, attribute.value) for attribute in rule.who}
    if (Key.CGROUP, "@host") in keys and any(key is Key.IMAGE for key, _ in keys):
        return "`cgroup=@host` and `image=` at once"
    return ""


def _beside(rule: Rule, policy: Policy, order: dict[int, int]) -> Iterator[Remark]:
    """What a rule shows beside the others: at most one remark."""
    for other in _neighbours(rule, policy, Action.DENY):
        if rule.action is Action.ALLOW and covers(other, rule):
            yield Remark(rule, f"never allows anything: {other.source} denies it all")
            return
    for other in _neighbours(rule, policy, rule.action):
        if other is rule or not covers(other, rule):
            continue
        if rule.kind is Kind.URL and other.kind is Kind.HOST:
            yield Remark(rule, f"pointless: {other.source} allows the whole host", "remove one of the two")
            return
        if order[id(other)] < order[id(rule)] or not covers(rule, other):
            yield Remark(rule, f"covered by {other.source}: `{other.source.text.strip()}`")
            return
    if rule.kind is Kind.URL and rule.action is Action.DENY:
        for other in _neighbours(rule, policy, Action.ALLOW):
            if Flag.PASSTHROUGH in other.flags:
                yield Remark(rule, f"can't be enforced: {other.source} says that the host is never decrypted")
                return


def _neighbours(rule: Rule, policy: Policy, action: Action) -> Iterator[Rule]:
    """The rules of that action which meet one certain subject of `rule`: all that could cover it are among them.

    Only the first few, so that many rules for one host don't take a square of time; what is missed is a remark.
    """
    return islice(_meeting(rule, policy, action), _LOOKED_AT)


def _meeting(rule: Rule, policy: Policy, action: Action) -> Iterator[Rule]:
    index = policy.allows if action is Action.ALLOW else policy.denies
    place = rule.destination
    if not isinstance(place, Pattern):
        yield from index.by_address(place.network_address)
        return
    name = str(place).replace("*.", "w.", 1).replace("*", "")
    if rule.url is None:
        yield from index.each_by_name(name)
    else:
        yield from index.by_url(name, rule.url.path.text.replace("*", "w"))


def covers(one: Rule, other: Rule) -> bool:
    """Does `one` match whatever `other` matches? True only where that is certain."""
    return (
        _same_plane(one, other)
        and _within(other.protos, one.protos)
        and _within(other.ports, one.ports)
        and set(one.who) <= set(other.who)
        and (one.action is Action.DENY or (other.flags <= one.flags and one.within in {(), other.within}))
        and _place_covers(one.destination, other.destination)
    )


def _same_plane(one: Rule, other: Rule) -> bool:
    if other.kind is Kind.DNS:
        return one.kind is not Kind.ADDRESS and (one.action is Action.ALLOW or one.kind is not Kind.URL)
    if one.url is None:
        return one.kind is not Kind.DNS and (one.kind is other.kind or other.kind is Kind.URL)
    if other.url is None or one.url.scheme != other.url.scheme or not _within(other.url.methods, one.url.methods):
        return False
    path = other.url.path.text
    return one.url.path.text == path or ("*" not in path and one.url.path.matches(path))


def _within[T](part: frozenset[T] | None, whole: frozenset[T] | None) -> bool:
    """Subset, None being everything."""
    return whole is None or (part is not None and part <= whole)


def _place_covers(one: Pattern | IPv4Network | IPv6Network, other: Pattern | IPv4Network | IPv6Network) -> bool:
    match one, other:
        case Pattern(), Pattern():
            return one == other or _pattern_covers(one, other)
        case IPv4Network(), IPv4Network():
            return other.subnet_of(one)
        case IPv6Network(), IPv6Network():
            return other.subnet_of(one)
        case _:
            return False


def _pattern_covers(one: Pattern, other: Pattern) -> bool:
    if not (other.deep or other.label):
        return one.matches(other.base)
    if one.deep and not one.label:
        return other.base == one.base or other.base.endswith(f".{one.base}")
    return one.deep and other.base != one.base and one.matches(f"w.{other.base}")
