"""The supervisor: root, small, and there for as long as the guard is.

Law: it starts, watches and ends; it judges nothing and reads nothing from the network.
"""
