"""Talking to a guard in force: status, health, reload, stop and more, over a Unix socket in the run's directory.

Law: the engine's loop serves (`server`), short-lived commands ask (`client`); `messages` is all that both know. Who
may ask what stands in `access` alone.
"""

SOCKET = "control"  # its name in the run's directory
