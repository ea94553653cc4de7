"""The pod agent: breaks the processes and the network of the pods on its machine."""
