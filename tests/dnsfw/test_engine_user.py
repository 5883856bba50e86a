"""Whom the engine becomes: the system user that was made for it, never a person who is called the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dnsfw.place import ENGINE_USER

pytestmark = pytest.mark.kernel

ASK = "from dnsfw.place import engine_user as who; print(who().uid, who().gid, who().groups)"
OURS = f"{ENGINE_USER.uid} {ENGINE_USER.gid} ()"


@pytest.mark.parametrize(
    ("account", "expected"),
    [
        ("", OURS),
        ("dnsfw:x:977:976::/:/usr/sbin/nologin", "977 976 ()"),
        ("dnsfw:x:1000:1000:Dana N. S. Fwells:/home/dnsfw:/bin/bash", OURS),
        ("dnsfw:x:0:0::/root:/bin/bash", OURS),
    ],
    ids=["no account", "a system user", "a person", "root by another name"],
)
def test_the_engines_user(tmp_path: Path, account: str, expected: str) -> None:
    passwd = tmp_path / "passwd"
    passwd.write_text(f"root:x:0:0:root:/root:/bin/bash\n{account}\n")
    script = 'mount --bind "$1" /etc/passwd && exec "$2" -c "$3"'
    shown = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]
    done = subprocess.run([*shown, str(passwd), sys.executable, ASK], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected
