"""The library behind the sentences: targets, requests, observers, faults, judge and report.

Nothing in here imports behave, so the same building blocks serve plain Python programs.
"""
