"""The observer of a node of a cluster: sees containers and the network of pods, and changes nothing."""
