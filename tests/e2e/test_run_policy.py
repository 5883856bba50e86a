"""What a policy refers to outside itself, under `dnsfw run`: placeholders, presets, registries; loaded once, pinned."""

from __future__ import annotations

from pathlib import Path

import pytest

from dnsfw.playground import atlas
from dnsfw.playground.world import Playground
from tests.e2e.inside import Laptop

pytestmark = pytest.mark.kernel

ALLOWED, EVIL = atlas.ALLOWED_NAME, atlas.EVIL_ZONE


@pytest.fixture(scope="module")
def laptop(world: Playground, tmp_path_factory: pytest.TempPathFactory) -> Laptop:
    return Laptop(world, tmp_path_factory.mktemp("policy"))


def resolves(name: str) -> list[str]:
    return ["getent", "ahostsv4", name]


def test_placeholders_stand_for_the_repository(laptop: Laptop) -> None:
    owner, _, zone = ALLOWED.partition(".")
    policy = f"{{owner}}.{zone}\n"
    assert laptop.run(policy, resolves(ALLOWED), "--repo", f"{owner}/any").returncode == 0
    assert laptop.run(policy, resolves(ALLOWED), "--repo", "other/any").returncode == 2  # getent's: not found
    refused = laptop.run(policy, ["echo", "started"])
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "a placeholder without a value" in refused.stderr


def test_presets_are_there(laptop: Laptop) -> None:
    assert laptop.run(f"@include os-basics\n@include ghcr\n{ALLOWED}\n", resolves(ALLOWED)).returncode == 0


def fake_npm(folder: Path, host: str) -> Path:
    """A tool whose configuration is easy to change."""
    folder.mkdir(exist_ok=True)
    (folder / "npm").write_text(f'#!/bin/sh\necho \'{{"registry": "https://{host}/"}}\'\n')
    (folder / "npm").chmod(0o755)
    return folder


def test_a_derived_registry_is_pinned_when_enforcing_starts(laptop: Laptop) -> None:
    """The guarded command rewrites the configuration that the rules came from: too late."""
    tools = fake_npm(laptop.directory / "tools", ALLOWED)
    script = (
        f"getent ahostsv4 {ALLOWED} >/dev/null && echo derived; "
        f'printf \'#!/bin/sh\\necho {{\\\\"registry\\\\": \\\\"https://{EVIL}/\\\\"}}\\n\' >{tools}/npm; npm; '
        f"getent ahostsv4 {EVIL} >/dev/null || echo pinned"
    )
    command = laptop.command("@registry npm\n", command=["sh", "-c", script])
    done = laptop.world.run(["env", f"PATH={tools}:/usr/sbin:/usr/bin:/sbin:/bin", *command])
    assert done.stdout == f'derived\n{{"registry": "https://{EVIL}/"}}\npinned\n'


def test_a_registry_that_cannot_be_asked_stops_everything(laptop: Laptop) -> None:
    done = laptop.run("@registry yarn\n", ["echo", "started"])
    assert (done.returncode, done.stdout) == (2, "")
    assert "nothing to take in: yarn is not a tool that can be asked" in done.stderr


def test_a_policy_that_changes_while_it_is_enforced_changes_nothing(laptop: Laptop) -> None:
    """CHECKLIST S4: read once."""
    policy = f"@include beside\n{ALLOWED}\n"
    (laptop.directory / "beside").write_text("# nothing\n")
    script = f"echo {EVIL} >>{laptop.directory}/beside; getent ahostsv4 {EVIL} || echo read once"
    assert laptop.run(policy, ["sh", "-c", script]).stdout == "read once\n"
