"""Programs that run and break things. They never import support.

``cell`` is the first process of a cell, which keeps its ``node`` agent and the fault ``service`` running. The ``gpu``
agent breaks the GPUs of a machine, and a ``watchdog`` sees to the end of its faults.
"""
