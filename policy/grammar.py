"""The policy language: the one definition of what a valid line is.

Law: a parsimonious PEG for one line, and nothing else. What a PEG can't say in reason (lengths, which flag suits which
rule) is in parse.py; what it does say is said nowhere else. The names of its expressions are what parse.py reads.
"""

from __future__ import annotations

from parsimonious.grammar import Grammar

# Regular expressions carry whole tokens: they are what makes parsimonious fast. `end` matches at the end alone, so that
# every failure is a ParseError at the furthest place reached.
LINE = Grammar(
    r"""
    line       = blank? content? end
    content    = directive / header / rule

    directive  = "@" verb gap word
    verb       = "include" / "registry"
    word       = ~r"[A-Za-z0-9][A-Za-z0-9._-]*"

    header     = open blank? (lead more / options)? blank? close
    open       = "["
    close      = "]"
    lead       = base / methods / transport
    base       = scheme "://" host ports? path?

    rule       = deny? (dns / url / below / address / site) more
    deny       = "!"
    dns        = resolve host
    resolve    = "dns:"
    url        = verbs? scheme "://" host ports? path
    below      = verbs? path
    verbs      = methods gap
    address    = (network6 / bracketed / network4) transport?
    site       = host transport?

    scheme     = ~r"https?"i
    host       = deep? label? name
    deep       = "*."
    label      = ~r"(?=[\w-]*\*)(?=\*?[\w-])[\w-]*(?:\*[\w-]+)*\*?\."
    name       = ~r"(?:[\w-]+\.)*[^\W\d_][\w-]*\.?(?![\w.*-])"
    path       = ~r"/[^\s#?\"`\[\]]*"
    methods    = ~r"\*(?=[\s\]])|[A-Z]+(?:\|[A-Z]+)*(?=[\s\]])"

    network4   = ~r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?:/[0-9]{1,2})?(?![\w.*-])"
    network6   = ~r"(?=[0-9A-Fa-f]*:[0-9A-Fa-f]*:)[0-9A-Fa-f:.]+(?:/[0-9]{1,3})?(?![\w.*:-])"
    bracketed  = ~r"\[[0-9A-Fa-f:.]+(?:/[0-9]{1,3})?\]"

    transport  = icmp / (ports proto?)
    icmp       = ~r"/icmp\b"
    ports      = ~r":(?:\*|[0-9]{1,5}(?:\|[0-9]{1,5})*)(?![\w|*:])"
    proto      = ~r"/(?:tcp|udp)\b"

    more       = (gap option)*
    options    = option more
    option     = attribute / within / flag
    attribute  = key "=" value
    key        = ~r"(?:exe|arg(?:\[[0-9]{1,4}\])?|user|cgroup|image|step|action)(?==)"
    value      = quoted / backticked / bare
    quoted     = ~r"\"[^\"]+\""
    backticked = ~r"`[^`]+`"
    bare       = ~r"[^\s\"`\[\]#]+"
    within     = "within=" networks
    networks   = ~r"[0-9A-Fa-f:./]+(?:\|[0-9A-Fa-f:./]+)*"
    flag       = ~r"(?:passthrough|insecure|private|no-sni)(?![\w=-])"

    gap        = ~r"[ \t]+(?!#|[ \t]|$)"
    blank      = ~r"[ \t]+"
    end        = ~r"[ \t]*(?:(?:^|(?<=[ \t]))#.*)?\Z"s
    """
)
