"""The TLS-terminating proxy for flows whose rules look at URLs: not built yet, so such policies are refused."""
