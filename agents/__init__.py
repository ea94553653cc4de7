"""Programs that run and break things: the cell's first process, the node agent, the ruler engine. They never import
support.
"""
