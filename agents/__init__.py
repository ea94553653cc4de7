"""Programs that run and break things: a cell's first process, node agent, ruler. They never import support."""
