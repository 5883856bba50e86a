"""Why a line is not valid, in words that help.

Law: called only for a line that the grammar refused. It explains and never decides: nothing becomes valid here.
"""

from __future__ import annotations

import re
from difflib import get_close_matches

from policy.line import LineError
from policy.rules import Flag, Key

_WORDS = [f"{key}=" for key in Key] + list(Flag) + ["within="]

# First match wins: a pattern over what stands at the failure, the reason, the hint.
_CASES = [
    (r"[^\S \t]", "a blank that is neither space nor tab", ""),
    (r"\{", "a placeholder without a value", "`{owner}` and `{repo}` come from --repo OWNER/NAME"),
    (r"@", "no such directive", "`@include NAME` or `@registry TOOL`"),
    (r"\[[^\]]*$", "the header is not closed", "add `]`"),
    (r"\[", "not a header", "`[https://…]`, `[:53/udp]`, `[GET|POST]`, `[exe=…]`, `[passthrough]` or `[]`"),
    (r"https?://[\d.]+[:/]|https?://\[", "a URL rule names a host, not an address", "use an address rule"),
    (r"https?://[^/\s]*(\s|$)", "a URL rule needs a path", "`/*` for everything below the host, `/` for its root"),
    (r"\S*\?", "a rule has no query", "leave out `?` and what follows: queries play no part"),
    (r"[a-z]+://", "only http:// and https:// are known", ""),
    (r"#", "`#` needs a blank before it", "a rule has no fragment; a comment stands apart"),
    (r"/(?:udp|tcp)\b", "a protocol needs a port before it", "`:53/udp`, `:*/tcp`"),
    (r"/icmp\b", "`/icmp` has no port", ""),
    (r":", "not a port", "`:22`, `:80|443`, `:*`, `:53/udp`"),
    (r"[\d.]+(?:[/:\s]|$)", "neither an address nor a host: the last label begins with a letter", ""),
    (r"\*(\s|$)", "a wildcard needs a host behind it", "`*.example.com`"),
    (r"[\w.*-]*\*", "a wildcard stands in the first label", "`*.x.com`, `a*.x.com` or `*.a*.x.com`"),
    (r"\w[\w.-]*=", "not an attribute", "a value with blanks needs quotes"),
]


def explain(text: str, start: int, expected: str) -> LineError:
    """The LineError for a line that the grammar could not follow beyond `start`, where it wanted `expected`."""
    rest = text[start:]
    blanks = len(rest) - len(rest.lstrip(" \t"))
    start, rest = start + blanks, rest[blanks:]
    if not rest:
        return LineError(start, "the line ends too early")
    word = re.match(r"[^\s=]*=?", rest)
    if expected in {"option", "attribute", "end", "close"} and word and (near := _near(word[0])):
        return LineError(start, f"not understood: {word[0]}", f"did you mean `{near}`?")
    for pattern, reason, hint in _CASES:
        if re.match(pattern, rest):
            return LineError(start, reason, hint)
    return LineError(start, f"not understood: {rest.split()[0] if rest.split() else rest!r}")


def _near(word: str) -> str:
    found = get_close_matches(word, _WORDS, 1)
    return found[0] if found and found[0] != word else ""
