"""Which hosts are looked into."""

from __future__ import annotations

import pytest

from policy.inspected import inspected
from policy.parse import parse


@pytest.mark.parametrize(
    ("text", "names"),
    [
        pytest.param("github.com\n*.x.example\ndns:a.example", (), id="no URL rule"),
        pytest.param("https://api.github.com/repos/*", ("api.github.com",), id="a host"),
        pytest.param("https://b.x/\nhttp://a.x/\nhttps://b.x/c", ("a.x", "b.x"), id="sorted, each once"),
        pytest.param("https://*.x.example/", ("x.example",), id="a wildcard is what stands below"),
        pytest.param("https://us-*.x.example/", ("x.example",), id="no constraint says a pattern"),
        pytest.param("https://x.example/\nhttps://a.x.example/", ("x.example",), id="what another covers"),
        pytest.param("https://x.example/\nhttps://ax.example/", ("ax.example", "x.example"), id="no label's end"),
        pytest.param("!https://x.example/a", (), id="a denial alone opens nothing"),
        pytest.param("x.example\n!https://x.example/a", ("x.example",), id="a denial within a host"),
        pytest.param("a.x.example\ny.test\n!https://*.example/", ("a.x.example",), id="a denial as far as is allowed"),
        pytest.param("*.example\n!https://a.x.example/b", ("a.x.example",), id="a denial below what is allowed"),
        pytest.param(
            "https://*.a.example/\n!https://*.example/b", ("a.example",), id="a denial above what is looked at"
        ),
        pytest.param("dns:x.example\n!https://x.example/", (), id="what may be resolved only"),
    ],
)
def test_names(text: str, names: tuple[str, ...]) -> None:
    assert inspected(parse(text, "p")) == names
