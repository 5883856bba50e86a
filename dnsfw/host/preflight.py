"""What a guard needs of the machine, asked before anything is changed.

Law: looks, changes nothing, and names the remedy.
"""

from __future__ import annotations

import ctypes.util
import os
import shutil
from pathlib import Path

from dnsfw.errors import SetupError
from dnsfw.machine import seccomp
from dnsfw.machine.cgroups import find_root

_BCC = Path("/usr/lib/python3/dist-packages/bcc")


def check(command: str) -> None:
    """Raises SetupError for the first thing that is missing. `command` is what the person typed after dnsfw."""
    if os.geteuid() != 0:
        what = "changes this host's" if command in {"up", "down"} else "makes a network namespace and a"
        still = "; the guarded command still runs as you" if command == "run" else ""
        raise SetupError(
            f"dnsfw {command} needs root: it {what} packet filter.",
            f"Call it through sudo{still}: sudo dnsfw {command} …",
        )
    if ctypes.util.find_library("nftables") is None:
        raise SetupError("The library libnftables is missing.", "Install the package nftables.")
    for program, package in (("ip", "iproute2"), ("iptables-nft-restore", "iptables")):
        if shutil.which(program) is None:
            raise SetupError(f"The program {program} is missing.", f"Install the package {package}.")
    if not _BCC.is_dir():
        raise SetupError("bcc is missing, so no process can be named as a socket's owner.", "Install python3-bpfcc.")
    find_root()
    seccomp.own_program()
