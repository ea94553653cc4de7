"""Scenarios as data: a deployment, a load on it, what breaks in mid-flight, and what has to hold."""

from support.requests.plan import Load
from support.scenarios.model import Failure, Scenario, library, read_scenarios
from support.scenarios.record import read_context

__all__ = ["Failure", "Load", "Scenario", "library", "read_context", "read_scenarios"]
