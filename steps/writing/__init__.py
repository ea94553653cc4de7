"""For those who write scenarios: the catalogue of all that they can say, and a feature to begin with.

behave does not load this folder: it looks for sentences in ``steps/`` alone.
"""
