"""The proxy's process, for flows whose rules look at URLs: who makes it, what it may do, and who starts the next one.

Law: what the proxy says is heard in the engine, what it is given is decided in the supervisor.
"""
