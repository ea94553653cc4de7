"""Agents that work on a whole machine, outside of cells: what they have in common."""
