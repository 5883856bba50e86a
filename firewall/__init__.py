"""Netfilter: marks, packet parsing, ruleset text, the table and the queue."""
