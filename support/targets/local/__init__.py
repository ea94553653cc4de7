"""This machine as a place where Dynamo runs: nodes in a cell, and a witness that asks the kernel."""
