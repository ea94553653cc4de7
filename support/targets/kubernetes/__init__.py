"""A Kubernetes cluster as a place where Dynamo runs: a namespace for each scenario, a pod for each node."""
