"""Names, paths, and the patterns over them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy import names, paths

LABEL = "a" * 63
LONGEST = f"{LABEL}.{LABEL}.{LABEL}.{'a' * 61}"


@pytest.mark.parametrize(
    ("raw", "canonical"),
    [
        ("", ""),
        (".", ""),
        ("COM", "com"),
        ("GitHub.com.", "github.com"),
        ("_acme-challenge.x.com", "_acme-challenge.x.com"),
        ("-x-.com", "-x-.com"),
        ("1.2.3.4", "1.2.3.4"),
        (LABEL + ".com", LABEL + ".com"),
        (LONGEST, LONGEST),
        (LONGEST + ".", LONGEST),
    ],
)
def test_canonical_names(raw: str, canonical: str) -> None:
    assert names.canonical(raw) == canonical
    assert names.from_unicode(raw) == canonical


@pytest.mark.parametrize(
    "raw",
    [
        "..",
        "a..b",
        ".a",
        "a.b..",
        "a b",
        "a/b",
        "a\0b",
        "a\n",
        "*.a",
        "a" * 64,
        LONGEST + "a",
        "é.com",
        "\u212a.com",
        "a%2eb",
    ],
)
def test_no_names(raw: str) -> None:
    with pytest.raises(names.InvalidNameError):
        names.canonical(raw)


@pytest.mark.parametrize(
    ("raw", "canonical"),
    [("bücher.example", "xn--bcher-kva.example"), ("BÜCHER.X.", "xn--bcher-kva.x"), ("\uff47it.com", "git.com")],
)  # fmt: skip
def test_idna(raw: str, canonical: str) -> None:
    assert names.from_unicode(raw) == canonical


@pytest.mark.parametrize(
    "raw", ["faß.de", "ς.gr", "a\u200db.com", "ü" * 60 + ".com", "\u2024.com", "é..com", "\ud800.com"]
)
def test_no_idna(raw: str) -> None:
    with pytest.raises(names.InvalidNameError):
        names.from_unicode(raw)


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("a.b", ["a.b"], ["b", "x.a.b", "a.b.c", ""]),
        ("*.b", ["a.b", "x.a.b"], ["b", "ab", "a.bb"]),
        ("d*.b", ["d.b", "derp.b", "d--.b"], ["xd.b", "d.x.b", "x.d.b", "b"]),
        ("d*p.b", ["dp.b", "derp.b", "dpp.b"], ["d.b", "dpx.b", "d.p.b"]),
        ("*x*.b", ["x.b", "axb.b"], ["b", "ab.b", "x.a.b"]),
        ("*.d*.b", ["a.d.b", "x.a.derp.b"], ["d.b", "a.x.b", "a.d.x.b"]),
    ],
)
def test_patterns(text: str, inside: list[str], outside: list[str]) -> None:
    pattern = names.pattern(text)
    assert str(pattern) == text
    assert [name for name in inside + outside if pattern.matches(name)] == inside


@given(st.text("ab*", max_size=8), st.text("ab", max_size=30))
def test_a_glob_is_what_a_naive_matcher_says(glob: str, text: str) -> None:
    def fits(pattern: str, rest: str) -> bool:
        if not pattern:
            return not rest
        if pattern[0] == "*":
            return any(fits(pattern[1:], rest[cut:]) for cut in range(len(rest) + 1))
        return rest[:1] == pattern[0] and fits(pattern[1:], rest[1:])

    assert (names.glob(glob).fullmatch(text) is not None) == fits(glob, text)


@pytest.mark.timeout(5)
def test_a_glob_never_backtracks_for_long() -> None:
    assert names.glob("*a" * 40 + "b").fullmatch("a" * 20_000) is None


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("/", ["/"], ["/x"]),
        ("/x", ["/x"], ["/", "/x/", "/X", "/xy"]),
        ("/*", ["/", "/x", "/x/y/"], []),
        ("/x/*", ["/x/", "/x/y", "/x/y/z"], ["/x", "/xy"]),
        ("/*/y", ["/x/y"], ["/y", "/x/x/y", "/x/y/z"]),
        ("/v*/y", ["/v/y", "/v1/y"], ["/1v/y", "/v/1/y"]),
        ("/v*", ["/v", "/v1"], ["/v/1", "/w"]),
        ("/a/", ["/a/"], ["/a"]),
    ],
)
def test_path_patterns(text: str, inside: list[str], outside: list[str]) -> None:
    pattern = paths.pattern(text)
    assert [path for path in inside + outside if pattern.matches(path)] == inside
    assert all(pattern.stem in set(paths.stems(path)) for path in inside)


@given(st.text(st.characters(codec="latin-1"), max_size=30).map("/{}".format))
def test_a_canonical_path_is_its_own_canonical_form(raw: str) -> None:
    try:
        path = paths.canonical(raw)
    except paths.AmbiguousPathError:
        return
    assert paths.canonical(path) == path
    assert not {"..", "."} & set(path.split("/"))
    assert "//" not in path
