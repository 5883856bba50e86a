"""The one error of this room.

Law: nothing else lives here.
"""


class BpfError(Exception):
    """Attribution can't be had: one clear sentence, and the remedy where there is one."""
