"""The TLS-terminating proxy for flows whose rules look at URLs."""
