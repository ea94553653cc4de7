"""What every agent is made of: faults as leases, their journal, the HTTP API that all have, calls to the kernel."""
