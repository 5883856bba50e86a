"""Why a line is not valid, in words that help.

Law: called only for a line that the grammar refused. It explains and never decides: nothing becomes valid here.
"""

from __future__ import annotations

import re
from difflib import get_close_matches

from policy.line import LineError
from policy.rules import Flag, Key

_WORDS = [f"{key}=" for key in Key] + list(Flag) + ["within="]
_LAST_LABEL = "the last label of a host begins with a letter"
_NO_HEADER = "this is no header"
_HEADERS = "`[https://…]`, `[:53/udp]`, `[GET|POST]`, `[exe=…]`, `[passthrough]` or `[]`"

# A pattern over the line, ‸ marking the place it could not be followed beyond; the reason; a hint. The first one found.
_CASES = [
    (r"^[^#]*‸[^\S \t]", "a blank that is neither space nor tab", ""),
    (
        r"^[^‸]*\$\{\{|(?:‸\$|\$‸|‸)\{\{",
        "what GitHub will put here is not known",
        "use `{owner}` and `{repo}`, or write it out",
    ),
    (r"‸\{", "a placeholder without a value", "`{owner}` and `{repo}` come from --repo OWNER/NAME"),
    (r"^‸?@", "not a directive", "`@include NAME` or `@registry TOOL`"),
    (r"=‸[\"`]", "the quote is not closed, or closes on nothing", ""),
    (r"=‸($|\s)", "the value is missing", ""),
    (r"^!?(?:\*[ \t]*‸(?:#|:|$)|‸\*(?:[\s:]|$))", "a lone `*` is no host", "`*.example.com`; `0.0.0.0/0`, `::/0`"),
    (r"^\[[^\]]*‸$", "the header is not closed", "add `]`"),
    (r"^\[[A-Z|]+ ‸", "a URL base takes no methods in its header", "write them before each path"),
    (r"^\[.*\].*‸", "nothing follows a header but a comment", ""),
    (r"^‸?\[", _NO_HEADER, _HEADERS),
    (r"://‸[\d.]+[:/]|://‸\[", "a URL rule names a host, not an address", "use an address rule"),
    (r"://[^/\s]*‸($|\s)", "a URL rule needs a path", "`/*` for everything below the host, `/` for its root"),
    (r"^!?dns:[^\s:]+‸:", "a `dns:` rule has no port", ""),
    (r"^!?dns:\S*‸", "not a name that may be resolved", _LAST_LABEL),
    (r"^!?[a-z|]+[ \t]+‸https?://", "methods are written in capitals", ""),
    (r"^!?[A-Z|]+[ \t]+‸", "methods are for URL and path rules", "`GET https://…/…`, `POST /…`"),
    (r"^!(?:‸!|[ \t]+‸)", "`!` stands once, right before what it denies", ""),
    (r"‸[a-z]+://|^[a-z]+‸://", "only http:// and https:// are known", ""),
    (r"^(?=[^‸]*‸\?)[^‸]*/[^\s‸]*‸", "a rule has no query", "leave out `?` and what follows: queries play no part"),
    (r"\S‸#", "`#` needs a blank before it", "a rule has no fragment; a comment stands apart"),
    (r"‸/(?:udp|tcp)\b", "a protocol needs a port before it", "`:53/udp`, `:*/tcp`"),
    (r"/icmp‸", "`/icmp` is a protocol of its own, with no port", ""),
    (r":[\d|*]+‸/", "no such protocol", "`/tcp`, `/udp`, or `/icmp` without a port"),
    (r":[\d|*]+‸[-,]", "ports are listed one by one", "`:80|443`, `:*` for all"),
    (r"^!?[0-9a-f:]+:[0-9a-f:]*‸/", "an IPv6 address with a port stands in brackets", "`[2001:db8::/32]:443`"),
    (r"‸:", "not a port", "`:22`, `:80|443`, `:*`, `:53/udp`"),
    (r"^(!|dns:)*‸\S*\.\.", "a label is empty", ""),
    (r"‸[\w.-]*\*|\*\S*‸\*|\*\.‸", "a wildcard stands in the first label", "`*.x.com`, `a*.x.com` or `*.a*.x.com`"),
    (r"^(!|dns:)*‸[\w.-]*\.?\d[\w-]*\.?($|[\s:/])", "neither a host nor an address", _LAST_LABEL),
    (r"‸[\w.\[\]-]+=", "not an attribute", ", ".join(f"`{key}=`" for key in Key)),
    (r"[ \t]‸", "neither an attribute nor a flag", "one rule a line; a value with blanks needs quotes"),
]


def explain(text: str, start: int) -> LineError:
    """The LineError for a line that the grammar could not follow beyond `start`."""
    start += len(text[start:]) - len(text[start:].lstrip(" \t"))
    rest = text[start:]
    if near := _near(rest):
        return LineError(start, "not understood", f"did you mean `{near}`?")
    marked = f"{text[:start]}‸{rest}".lstrip(" \t")
    for pattern, reason, hint in _CASES:
        if re.search(pattern, marked):
            return LineError(start, reason, hint)
    return LineError(start, "not understood" if rest else "the line ends too early")


def _near(rest: str) -> str:
    """The attribute or flag that the next word is nearly."""
    word = re.match(r"[a-z][a-z-]{2,}(?:\[[^\]]*\])?(?:=|(?=[\s\]]|$))", rest)
    found = get_close_matches(word[0], _WORDS, 1, 0.7) if word else []
    return found[0] if found and word and found[0] != word[0] else ""
