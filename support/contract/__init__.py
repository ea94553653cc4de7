"""What the suite asks of a place where Dynamo runs, and what such a place tells of itself."""
