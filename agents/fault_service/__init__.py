"""The fault injection service, in front of the agents: ``python -m agents.fault_service --help``."""
