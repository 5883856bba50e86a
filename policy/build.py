"""From one valid line and the header above it to a rule, or to the next header.

Law: every default, every inheritance and the question which term suits which rule have their one place here. Nothing is
repaired in silence: what can't apply is a LineError, whether the rule or its header says it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from policy import names, paths
from policy.line import UNSAID, Line, LineError, Token, Transport, UidOf
from policy.rules import SCHEME_PORTS, TCP, Attribute, Flag, Kind, Rule, Source, Url
from policy.values import Action, Network

_HOST_FLAGS = frozenset({Flag.PASSTHROUGH, Flag.PRIVATE, Flag.NO_SNI})
_HTTPS = frozenset({443})
_READS = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True)
class Base:
    """What a path stands on. `path` has no slash at its end; `transport` None is the scheme's own port."""

    scheme: str
    host: names.Pattern
    transport: Transport | None
    path: str = ""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a header or a rule says besides its destination.

    None is unsaid; but of `methods`, empty is unsaid and None is any.
    """

    base: Base | None = None
    transport: Transport | None = None
    methods: frozenset[str] | None = UNSAID
    who: tuple[Attribute, ...] = ()
    flags: frozenset[Flag] = frozenset()
    within: tuple[Network, ...] = ()

    def under(self, header: Terms) -> Terms:
        """These terms where `header` stands above: one's own win, attribute by attribute."""
        if header is NO_TERMS:
            return self
        own = {(attribute.key, attribute.position) for attribute in self.who}
        inherited = tuple(a for a in header.who if (a.key, a.position) not in own)
        return Terms(
            base=self.base or header.base,
            transport=self.transport or header.transport,
            methods=header.methods if self.methods == UNSAID else self.methods,
            who=inherited + self.who,
            flags=header.flags | self.flags,
            within=self.within or header.within,
        )


NO_TERMS = Terms()


def _terms(line: Line) -> Terms:
    return Terms(None, line.transport(), line.methods(), line.who(), line.flags(), line.within())


def header(tokens: Sequence[Token], uid_of: UidOf) -> Terms:
    """The terms that a `[...]` line sets. Raises LineError."""
    line = Line(tokens, uid_of)
    terms = _terms(line)
    if "scheme" not in line.first:
        return terms
    prefix = line.path().removesuffix("/") if "path" in line.first else ""
    return replace(terms, base=Base(line.scheme(), line.host(), terms.transport, prefix), transport=None)


def rule(tokens: Sequence[Token], above: Terms, uid_of: UidOf, source: Source) -> Rule:
    """The rule a line stands for, below the header `above`. Raises LineError."""
    line = Line(tokens, uid_of)
    terms = _terms(line).under(above)
    action = Action.DENY if "deny" in line.first else Action.ALLOW
    for complaint in _complaints(line.kind, action, terms):
        raise LineError(tokens[0].start, complaint, "if it comes from the header above, `[]` ends that")
    match line.kind:
        case Kind.URL:
            target = _url(line, action, terms)
        case Kind.DNS:
            target = _Target(line.host(), frozenset(), frozenset())
        case _:
            target = _site(line, action, terms)
    return Rule(action, line.kind, *target, who=terms.who, flags=terms.flags, within=terms.within, source=source)


class _Target(NamedTuple):
    """The fields of a rule that say where."""

    destination: names.Pattern | Network
    protos: frozenset[int] | None
    ports: frozenset[int] | None
    url: Url | None = None


# What an allow rule leaves out is the least that is useful; what a deny rule leaves out, it denies all of.


def _site(line: Line, action: Action, terms: Terms) -> _Target:
    destination = line.host() if line.kind is Kind.HOST else line.network()
    allowing = action is Action.ALLOW
    said = terms.transport or Transport(None, _HTTPS if allowing else None)
    return _Target(destination, TCP if allowing and said.protos is None else said.protos, said.ports)


def _url(line: Line, action: Action, terms: Terms) -> _Target:
    base = Base(line.scheme(), line.host(), terms.transport) if "scheme" in line.first else terms.base
    if base is None:
        raise LineError(line.first["path"].start, "a path rule needs a URL base", "put a `[https://…]` header above it")
    allowing = action is Action.ALLOW
    said = base.transport or Transport(TCP, frozenset({SCHEME_PORTS[base.scheme]}) if allowing else None)
    methods = terms.methods
    if methods == UNSAID:
        methods = _READS if allowing else None
    return _Target(base.host, TCP, said.ports, Url(base.scheme, paths.pattern(base.path + line.path()), methods))


def _complaints(kind: Kind, action: Action, terms: Terms) -> Iterator[str]:
    """The terms that can't apply to this kind of rule, the header's as well."""
    if action is Action.DENY and (terms.flags or terms.within):
        yield "a deny rule has no flags"
    if kind is not Kind.URL and terms.methods != UNSAID:
        yield "only URL and path rules have methods"
    if kind is Kind.URL and terms.transport is not None and terms.transport.protos not in {None, TCP}:
        yield "a URL rule is about TCP"
    if kind is Kind.DNS and terms.transport is not None:
        yield "a `dns:` rule has no port"
    if kind is Kind.DNS and Flag.INSECURE in terms.flags:
        yield "a `dns:` rule has no `insecure`"
    if kind is not Kind.HOST and terms.within:
        yield "only host rules have `within=`"
    if kind is not Kind.HOST and terms.flags & _HOST_FLAGS:
        yield f"only host rules have `{min(terms.flags & _HOST_FLAGS)}`"
    if terms.flags >= {Flag.INSECURE, Flag.PASSTHROUGH}:
        yield "`insecure` and `passthrough` exclude each other"
