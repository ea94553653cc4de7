"""The fault service, in front of the agents: ``python -m agents.service --help``."""
