"""Policy: what may leave, decided from values alone.

The parser is imported by its own name, `policy.parse`: whoever only carries values need not load a grammar.
"""

from policy.bindings import Bindings
from policy.budget import Budgets, Limits, Spent
from policy.decide import NAMING_PORTS, Decision, decide, greeted, identified, resolvable, unverified
from policy.errors import PolicyInvalid, PolicySyntaxError
from policy.index import Policy
from policy.render import render
from policy.rules import Attribute, Flag, Key, Kind, Rule, Source, Url
from policy.suggest import suggest, suggest_no_sni, suggest_passthrough
from policy.values import (
    Action,
    Address,
    Binding,
    Flow,
    Network,
    Owner,
    Proto,
    Query,
    Reason,
    Request,
    Seen,
    Spoken,
    Subject,
    address,
    unpacked,
)

__all__ = [
    "NAMING_PORTS",
    "Action",
    "Address",
    "Attribute",
    "Binding",
    "Bindings",
    "Budgets",
    "Decision",
    "Flag",
    "Flow",
    "Key",
    "Kind",
    "Limits",
    "Network",
    "Owner",
    "Policy",
    "PolicyInvalid",
    "PolicySyntaxError",
    "Proto",
    "Query",
    "Reason",
    "Request",
    "Rule",
    "Seen",
    "Source",
    "Spent",
    "Spoken",
    "Subject",
    "Url",
    "address",
    "decide",
    "greeted",
    "identified",
    "render",
    "resolvable",
    "suggest",
    "suggest_no_sni",
    "suggest_passthrough",
    "unpacked",
    "unverified",
]
