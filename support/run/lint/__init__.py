"""Finds the mistakes in feature files before anything starts; it is handed what behave's parser has read."""
