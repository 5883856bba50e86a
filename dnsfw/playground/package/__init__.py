"""The malicious package: a dependency that wants a message out, by every way it knows.

Law: the standard library and `atlas` only, and nothing newer than Python 3.10: it runs as a program of its own, as an
unprivileged user, in whatever interpreter that user can start. It never judges whether it succeeded; the internet does.
"""
