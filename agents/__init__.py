"""Programs that run and break things: a cell's first process, node agent, fault service. They never import support."""
