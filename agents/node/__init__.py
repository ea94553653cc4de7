"""The node agent of a cell: its nodes, their processes and network, and how these are broken."""
