"""The scenario's world: its deployment, what its clients do, what breaks, and what has to become true."""
