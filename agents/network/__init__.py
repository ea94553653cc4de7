"""Cuts and bottlenecks between network namespaces, made by netlink."""
