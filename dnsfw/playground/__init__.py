"""A tiny internet inside namespaces of this machine, and a laptop on it: for the demo, the tests and the benchmarks.

Law: nothing here is part of the guard, and the guard imports nothing from here but the demo command. Only
documentation addresses (RFC 5737, RFC 3849) and reserved names (RFC 6761) are used; no packet leaves the machine.
Start with `dnsfw.playground.world`.
"""
