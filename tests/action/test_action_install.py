"""scripts/install.sh: dnsfw in a folder of root's, made of nothing that its locks don't name; half of it is nothing."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from tests.action.standin import ROOT

pytestmark = pytest.mark.kernel("root")
CONTROL = "Package: nftables\nVersion: 99\nArchitecture: all\nMaintainer: nobody\nDescription: not it\n"
SCRIPT = ROOT / "scripts/install.sh"


def install(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = ["bash", SCRIPT, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)


def test_a_cache_that_somebody_wrote_to_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    """A wheel with the right name and another content: pip knows it by its hash. A package that no signed list has.
    And a link, which could lead elsewhere after it was checked."""
    cython = next(line for line in (ROOT / "requirements/build.lock").read_text().splitlines() if "cython==" in line)
    version = cython.split("==")[1].split()[0]
    wheels, packages = tmp_path / "cache/wheels", tmp_path / "cache/packages"
    wheels.mkdir(parents=True)
    packages.mkdir()
    forged = b"PK\5\6" + bytes(18)
    (wheels / f"cython-{version}-py3-none-any.whl").write_bytes(forged)
    (tmp_path / "tree/DEBIAN").mkdir(parents=True)
    (tmp_path / "tree/DEBIAN/control").write_text(CONTROL)
    subprocess.run(["dpkg-deb", "--build", tmp_path / "tree", packages / "nftables_99_all.deb"], check=True)
    (packages / "link.deb").symlink_to(packages / "nftables_99_all.deb")
    done = install(tmp_path / "prefix", tmp_path / "cache")
    assert done.returncode != 0
    assert "nftables_99_all.deb is not what the lists of packages name; left out" in done.stdout
    assert "link.deb" not in done.stdout + done.stderr
    assert f"Got        {hashlib.sha256(forged).hexdigest()}" in done.stderr
    assert not (tmp_path / "prefix").exists()


def test_where_others_may_write_nothing_is_installed(tmp_path: Path) -> None:
    """GitHub's images have /opt so: somebody could put another dnsfw in its place, for root to run."""
    (tmp_path / "opt").mkdir()
    (tmp_path / "opt").chmod(0o777)
    done = install(tmp_path / "opt/dnsfw/x")
    assert done.returncode == 1
    assert f"others than root may write to {tmp_path}/opt" in done.stderr
    assert not list((tmp_path / "opt").iterdir())


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    program = tmp_path / "prefix/bin/dnsfw"
    program.parent.mkdir(parents=True)
    program.symlink_to("/bin/true")
    assert install(tmp_path / "prefix").returncode == 0
    assert [path.name for path in (tmp_path / "prefix").iterdir()] == ["bin"]
