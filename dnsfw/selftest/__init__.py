"""`dnsfw selftest`: bypass attempts against the guard of this very machine, or against a throw-away run."""
