"""The composition root: the one package that knows every room, the kernel and the command line."""

__version__ = "0.1.0"
