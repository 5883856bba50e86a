"""The TLS-terminating proxy for flows whose rules look at URLs.

Law: it decides nothing. What a client asks for is put to the engine's gate (`proxy.messages`), and what can't be put
there without ambiguity is refused. It connects to the address that the client's packets were sent to, and to no other.
"""
