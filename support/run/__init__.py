"""The start of a run: environments, cells, the launcher, and what the target can."""
