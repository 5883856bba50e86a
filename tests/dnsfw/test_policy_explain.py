"""dnsfw explain: the decision, the rule, the near misses, the line that would allow it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.dnsfw.commands import dnsfw

POLICY = """\
https://api.example.com/repos/*/releases
POST https://api.example.com/x
git.example.com:22 exe=/usr/bin/ssh user=0
*.pages.example.com
10.0.0.0/8:5432
!evil.example.com
dns:only.example.com
db.example.com within=10.1.0.0/16 private
derp*.example.org arg=up
c.example.org cgroup=@container image=app:* step=build action=o/r
[2001:db8:1::/48]:443
!10.9.0.0/16:*
ping.example.org/icmp
!guarded.example.org user=0
guarded.example.org
!gate.example.org:25
"""


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("explain") / "p"
    path.write_text(POLICY)
    return path


def answered(policy: Path, question: str) -> dict[str, Any]:
    said = dnsfw("explain", "--json", policy, *question.split())
    answer: dict[str, Any] = json.loads(said.out)
    assert said.status == (0 if answer["allowed"] else 1)
    return answer


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("https://api.example.com/repos/a/releases", ("allow", "allow-rule", 1, "")),
        ("https://api.example.com/repos/a/releases?q=1#f", ("allow", "allow-rule", 1, "")),
        ("https://api.example.com/x", ("deny", "method", None, "GET https://api.example.com/x")),
        ("https://api.example.com/x --method POST", ("allow", "allow-rule", 2, "")),
        ("https://api.example.com", ("deny", "path", None, "GET https://api.example.com/")),
        ("http://api.example.com/x", ("deny", "port", None, "GET http://api.example.com/x")),
        ("https://api.example.com:8443/x", ("deny", "port", None, "GET https://api.example.com:8443/x")),
        ("https://api.example.com/repos/a/../releases", ("deny", "malformed", None, "")),
        ("https://user@api.example.com/x", ("deny", "malformed", None, "")),
        ("tcp://api.example.com:443", ("inspect", "allow-rule", 1, "")),
        ("tcp://git.example.com:22", ("deny", "owner", None, "git.example.com:22")),
        ("tcp://git.example.com:22 --exe /usr/bin/ssh --user root", ("allow", "allow-rule", 3, "")),
        ("tcp://git.example.com:22 --exe /usr/bin/git --user root", ("deny", "owner", None, "git.example.com:22")),
        ("dns:git.example.com/AAAA --exe /usr/bin/ssh --user 0", ("allow", "allow-rule", 3, "")),
        ("dns:A.Pages.Example.com.", ("allow", "allow-rule", 4, "")),
        ("dns:a.pages.example.com/NULL", ("deny", "type", None, "")),
        ("dns:a.pages.example.com/10", ("deny", "type", None, "")),
        ("dns:pages.example.com", ("deny", "no-rule", None, "pages.example.com")),
        ("dns:bücher.example", ("deny", "no-rule", None, "xn--bcher-kva.example")),
        ("tcp://10.0.0.1:5432", ("allow", "allow-rule", 5, "")),
        ("tcp://10.0.0.1:5433", ("deny", "port", None, "10.0.0.1:5433")),
        ("udp://10.0.0.1:5432", ("deny", "port", None, "10.0.0.1:5432/udp")),
        ("tcp://11.0.0.1:22", ("deny", "no-binding", None, "11.0.0.1:22")),
        ("tcp://11.0.0.1:443 --names a.pages.example.com,b.test", ("allow", "allow-rule", 4, "")),
        ("tcp://[2001:db8:1::7]:443", ("allow", "allow-rule", 11, "")),
        ("tcp://[2001:db8:2::7]:443", ("deny", "no-binding", None, "2001:db8:2::7")),
        ("https://evil.example.com/", ("deny", "deny-rule", 6, "")),
        ("tcp://10.9.1.1:5432", ("deny", "deny-rule", 12, "")),
        ("dns:only.example.com", ("allow", "allow-rule", 7, "")),
        ("tcp://only.example.com:443", ("deny", "port", None, "only.example.com")),
        ("tcp://db.example.com:443", ("allow", "allow-rule", 8, "")),
        ("tcp://db.example.com:443 --address 11.2.0.1", ("deny", "no-binding", None, "db.example.com")),
        ("tcp://derp1.example.org:443 --arg x --arg up", ("allow", "allow-rule", 9, "")),
        ("tcp://derp1.example.org:443 --arg down", ("deny", "owner", None, "derp1.example.org")),
        ("tcp://c.example.org:443 --cgroup @docker --image app:1 --step build --action o/r",
         ("allow", "allow-rule", 10, "")),
        ("tcp://c.example.org:443 --cgroup /x --step build --action o/r", ("deny", "owner", None, "c.example.org")),
        ("tcp://c.example.org:443 --image app:1 --step build --action o/r", ("allow", "allow-rule", 10, "")),
        ("icmp://ping.example.org", ("allow", "allow-rule", 13, "")),
        ("icmp://[2001:db8:2::7]", ("deny", "no-binding", None, "[2001:db8:2::7]/icmp")),
        ("dns:guarded.example.org", ("deny", "deny-rule", 14, "")),
        ("dns:guarded.example.org --user 1", ("allow", "allow-rule", 15, "")),
    ],
)  # fmt: skip
def test_decision(policy: Path, question: str, expected: tuple[object, ...]) -> None:
    answer = answered(policy, question)
    line = answer["rule"] and answer["rule"]["source"]["line"]
    assert (answer["action"], answer["reason"], line, answer["to_allow"]) == expected


@pytest.mark.parametrize(
    ("question", "line", "why"),
    [
        ("https://api.example.com/x", 2, "its methods are POST, not GET"),
        ("https://api.example.com/x", 1, "its path is /repos/*/releases, not /x"),
        ("http://api.example.com/x", 2, "it is about https, not http"),
        ("https://api.example.com:80/x", 2, "it is about tcp port 443, not tcp port 80"),
        ("tcp://git.example.com:22", 3,
         "it wants exe=/usr/bin/ssh user=0, and nothing is known of the process"),
        ("tcp://git.example.com:22 --exe /a --user 0", 3, "it wants exe=/usr/bin/ssh, the process has /a"),
        ("tcp://git.example.com:22 --exe /usr/bin/ssh", 3, "it wants user=0, the process has none"),
        ("dns:pages.example.com", 4, "it is about names below pages.example.com, not that name itself"),
        ("dns:a.only.example.com", 7, "it is about this name alone, not what stands below it"),
        ("dns:example.com", 1, "it names api.example.com, further down"),
        ("dns:a.derp1.example.org", 9, "it is about exactly one label before example.org"),
        ("dns:drep1.example.org", 9, "it wants a label like derp* right before example.org"),
        ("dns:olny.example.com", 7, "it names only.example.com: a slip of the pen?"),
        ("tcp://10.0.0.1:5433", 5, "it is about tcp port 5432, not tcp port 5433"),
        ("icmp://10.0.0.1", 5, "it is about tcp port 5432, not icmp"),
        ("tcp://ping.example.org:443", 13, "it is about icmp, not tcp port 443"),
        ("tcp://[2001:db8:2::7]:443", 11, "2001:db8:2::7 is not in 2001:db8:1::/48"),
        ("tcp://only.example.com:443", 7, "it lets the name be resolved and gives no right to connect"),
        ("tcp://db.example.com:443 --address 11.2.0.1", 8,
         "the address is not within the rule's networks, so it would not be bound to the name"),
        ("tcp://derp1.example.org:443 --arg down", 9, "it wants arg=up, the process has down"),
        ("tcp://c.example.org:443 --cgroup @host --step build --action o/r", 10,
         "it wants cgroup=@container, the process has none; it wants image=app:*, the process has none"),
        ("tcp://10.9.1.1:5432", 5, "allows it by itself"),
        ("dns:guarded.example.org", 15, "allows it by itself"),
        ("tcp://gate.example.org:443", 16, "it is about any protocol port 25, not tcp port 443"),
        ("tcp://guarded.example.org:443 --user 7", 14, "it wants user=0, the process has 7"),
        ("dns:a.pages.example.com/NULL", 4, "allows it by itself"),
    ],
)  # fmt: skip
def test_why_a_near_rule_does_not_match(policy: Path, question: str, line: int, why: str) -> None:
    near = {one["rule"]["source"]["line"]: one["why"] for one in answered(policy, question)["nearest"]}
    assert near.get(line) == why


def test_nearest_comes_first_and_only_a_few_are_shown(tmp_path: Path) -> None:
    (tmp_path / "p").write_text("\n".join(f"https://a.example/{n}" for n in range(50)) + "\nPOST https://a.example/x")
    near = answered(tmp_path / "p", "https://a.example/x")["nearest"]
    assert [one["rule"]["source"]["line"] for one in near] == [51, 1, 2, 3, 4]


def test_text(policy: Path) -> None:
    said = dnsfw("explain", policy, "tcp://only.example.com:443")
    assert said == (
        1,
        f"""\
denied: tcp://only.example.com:443
    a rule allows this destination, but not this port or protocol
    (assumed: only.example.com was resolved to 198.51.100.1; --address says otherwise)
rules that come near:
    {policy}:7: dns:only.example.com
        it lets the name be resolved and gives no right to connect
to allow it: only.example.com
""",
        "",
    )


def test_text_of_a_deny_rule(policy: Path) -> None:
    said = dnsfw("explain", policy, "dns:evil.example.com")
    assert said.out == (
        "denied: dns:evil.example.com\n    a deny rule names it\n"
        f"    {policy}:6: !evil.example.com\nno line can allow it: a deny rule wins wherever it stands\n"
    )


@pytest.mark.parametrize(
    ("question", "told"),
    [
        ("tcp://guarded.example.org:443 --user 7", True),
        ("tcp://10.0.0.1:5432", False),
        ("icmp://ping.example.org", False),
        ("tcp://guarded.example.org:22 --user 7", False),
        ("https://guarded.example.org/ --user 7", False),
    ],
)
def test_a_client_is_held_to_the_names_of_a_host_rule(policy: Path, question: str, told: bool) -> None:
    assert ("as long as its client says first" in dnsfw("explain", policy, *question.split()).out) is told


def test_an_assumed_address_is_one_that_no_rule_names(tmp_path: Path) -> None:
    (tmp_path / "p").write_text("198.51.100.0/24:*\n!203.0.113.0/24:*\na.example")
    assert not answered(tmp_path / "p", "tcp://b.example:22")["allowed"]
    assert answered(tmp_path / "p", "tcp://a.example:443")["assumed"] == "a.example was resolved to 192.0.2.1"


def test_what_is_suggested_does_allow_it(policy: Path, tmp_path: Path) -> None:
    questions = ["https://api.example.com/x", "tcp://11.0.0.1:22", "dns:new.example", "icmp://10.0.0.1"]
    for question in questions:
        line = answered(policy, question)["to_allow"]
        (tmp_path / "p").write_text(POLICY + line)
        assert answered(tmp_path / "p", question)["allowed"], question


@pytest.mark.parametrize(
    ("question", "problem"),
    [
        ("nonsense", "nothing that could be allowed"),
        ("ftp://a.example/x", "nothing that could be allowed"),
        ("https:///x", "nothing that could be allowed"),
        ("tcp://a.example", "needs a port"),
        ("tcp://a.example:0", "needs a port"),
        ("tcp://a.example:99999", "needs a port"),
        ("tcp://a..example:1", "neither an address nor a name"),
        ("dns:a.example/FOO", "no DNS type"),
        ("dns:a.example/²", "no DNS type"),
        ("dns:a.example/999999", "no DNS type"),
        ("tcp://a.example:1 --address x", "no address"),
        ("tcp://a.example:1 --user nobody-is-called-so", "No user is called"),
        ("dns:a.example --repo x", "OWNER/NAME"),
    ],
)
def test_mistakes_in_the_call(policy: Path, question: str, problem: str) -> None:
    said = dnsfw("explain", policy, *question.split())
    assert said.status == 2
    assert problem in said.err


@pytest.mark.parametrize(
    ("value", "exe", "holds"),
    [
        ("/opt/*/x", "/opt/a b/x", True),
        ("/opt/*/x", "/opt/x", False),
        ("`/opt/my tools/*`", "/opt/my tools/x", True),
        ("`/opt/my tools/*`", "/opt/my", False),
        ('"/opt/my tools/*"', "/opt/my tools/*", True),
        ('"/opt/my tools/*"', "/opt/my tools/x", False),
        ('"/opt/`x`"', "/opt/`x`", True),
        ('`/opt/"*"`', '/opt/"x"', True),
    ],
)
def test_the_three_ways_to_write_a_value(tmp_path: Path, value: str, exe: str, holds: bool) -> None:
    """Bare and in backticks `*` is a wildcard, in quotes an asterisk; blanks need one of the two."""
    (tmp_path / "p").write_text(f"a.example exe={value}")
    assert dnsfw("explain", tmp_path / "p", "dns:a.example", "--exe", exe).status == (0 if holds else 1)


def test_an_invalid_policy_explains_nothing(tmp_path: Path) -> None:
    (tmp_path / "p").write_text("a..b")
    said = dnsfw("explain", tmp_path / "p", "dns:a.example")
    assert said.status == 2
    assert "a label is empty" in said.err


def test_placeholders_from_the_option_and_from_the_environment(tmp_path: Path) -> None:
    (tmp_path / "p").write_text("{owner}.{repo}.example")
    assert dnsfw("explain", "--repo", "o/r", tmp_path / "p", "dns:o.r.example").status == 0
    assert dnsfw("explain", tmp_path / "p", "dns:o.r.example", repository="o/r").status == 0
    assert dnsfw("explain", "--repo", "o/r", tmp_path / "p", "dns:o.r.example", repository="x/y").status == 0
    assert dnsfw("explain", tmp_path / "p", "dns:o.r.example").status == 2
    assert dnsfw("explain", tmp_path / "p", "dns:o.r.example", repository="o/r\nevil.example").status == 2
