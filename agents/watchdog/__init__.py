"""The watchdog of agents outside cells, a process of its own."""
