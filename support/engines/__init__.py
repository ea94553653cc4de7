"""Engines of our own, which run as Dynamo workers in the environment of the release under test."""
