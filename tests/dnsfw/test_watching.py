"""Whose a policy's file is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dnsfw.machine.custody import roots_alone

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes files of others, which root may")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    for folder in (tmp_path, tmp_path.parent):  # pytest's own: root's, and in a sticky /tmp
        folder.chmod(0o700)
    made = tmp_path / "policy"
    made.write_text("")
    made.chmod(0o644)
    return made


def test_a_file_of_roots_is(file: Path) -> None:
    assert roots_alone(file)


@pytest.mark.parametrize("mode", [0o664, 0o646], ids=["group", "others"])
@pytest.mark.parametrize("which", ["file", "folder"])
def test_one_that_others_may_write_is_not(file: Path, which: str, mode: int) -> None:
    (file if which == "file" else file.parent).chmod(mode | 0o111)
    assert not roots_alone(file)


@pytest.mark.parametrize("which", ["file", "folder"])
def test_one_that_is_another_users_is_not(file: Path, which: str) -> None:
    os.chown(file if which == "file" else file.parent, 12345, -1)
    assert not roots_alone(file)


def test_a_link_is_what_both_its_ends_are(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(file)
    assert roots_alone(link)
    elsewhere = tmp_path / "theirs"
    elsewhere.mkdir()
    os.chown(elsewhere, 12345, -1)
    lent = elsewhere / "link"
    lent.symlink_to(file)
    assert not roots_alone(lent)
    (elsewhere / "policy").write_text("")
    (tmp_path / "out").symlink_to(elsewhere / "policy")
    assert not roots_alone(tmp_path / "out")


def test_one_that_is_not_there_is_not(tmp_path: Path) -> None:
    assert not roots_alone(tmp_path / "none")
