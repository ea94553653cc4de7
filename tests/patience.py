"""How long tests wait for other processes."""

PATIENCE = 60.0
"""Seconds. On a machine that others use as well a process may get no processor for many of them, and nobody waits for
longer than it takes.
"""
