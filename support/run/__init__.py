"""The start of a run: environments, cells, the launcher, and what this machine can."""
