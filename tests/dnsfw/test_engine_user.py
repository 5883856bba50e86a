"""Whom engine and proxy become: the system users that were made for them, never a person who is called the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dnsfw.place import ENGINE_USER, PROXY_USER

pytestmark = pytest.mark.kernel

ASK = """
from dnsfw.place import engine_user, proxy_user
for user in (engine_user(), proxy_user()):
    print(user.uid, user.gid, user.groups)
"""
ENGINE, PROXY = (f"{user.uid} {user.gid} ()" for user in (ENGINE_USER, PROXY_USER))


@pytest.mark.parametrize(
    ("account", "expected"),
    [
        ("", [ENGINE, PROXY]),
        ("dnsfw:x:977:976::/:/usr/sbin/nologin", ["977 976 ()", PROXY]),
        ("dnsfw-proxy:x:975:974::/:/usr/sbin/nologin", [ENGINE, "975 974 ()"]),
        ("dnsfw:x:1000:1000:Dana N. S. Fwells:/home/dnsfw:/bin/bash", [ENGINE, PROXY]),
        ("dnsfw:x:0:0::/root:/bin/bash", [ENGINE, PROXY]),
        ("dnsfw-proxy:x:0:0::/root:/bin/bash", [ENGINE, PROXY]),
    ],
    ids=["no account", "the engine's", "the proxy's", "a person", "root by another name", "root by the other name"],
)
def test_whom_they_become(tmp_path: Path, account: str, expected: list[str]) -> None:
    passwd = tmp_path / "passwd"
    passwd.write_text(f"root:x:0:0:root:/root:/bin/bash\n{account}\n")
    script = 'mount --bind "$1" /etc/passwd && exec "$2" -c "$3"'
    shown = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]
    done = subprocess.run([*shown, str(passwd), sys.executable, ASK], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == expected
