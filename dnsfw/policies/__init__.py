"""Policies as files and as text: read, pinned, checked, explained, formatted, made out of what a machine says."""
