"""Files in the scratch folder of a cell by which liars and listeners signal each other."""

CUE = "cue"
"""Made by who plays a scenario: what lies on a cue does so now."""
DONE = "done"
"""The answer to it: what has waited for the cue is done."""
