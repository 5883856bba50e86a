"""The engine: one process and one event loop that judge queries and flows.

Law: runs without privilege; what only root may do is asked of the supervisor.
"""
