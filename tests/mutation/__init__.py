"""Mutation testing: whether the suite's own tests notice when judge, observers or proofs are changed in one place."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = ROOT / ".envs" / "cosmic-ray"
SURVIVORS = Path(__file__).with_name("survivors.yaml")
LEAST_PERCENT = 85.0
"""Of all mutants that have to be killed."""

ROOMS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "judge": (
        (
            "support/judge/chance.py",
            "support/judge/figures.py",
            "support/judge/lag.py",
            "support/judge/recovery.py",
            "support/judge/samples.py",
            "support/judge/rules/etcd.py",
        ),
        (
            "tests/test_chance.py",
            "tests/test_figures.py",
            "tests/test_results.py",
            "tests/test_flattery.py",
            "tests/test_judge_invariants.py",
            "tests/test_judge_verdicts.py",
            "tests/test_expectations.py",
        ),
    ),
    "observe": (
        (
            "support/observe/etcd.py",
            "support/observe/etcd_recorder.py",
            "support/observe/fleet.py",
            "support/observe/footprint.py",
            "support/observe/health.py",
            "support/observe/journal.py",
            "support/observe/logs.py",
            "support/observe/metrics.py",
            "support/observe/waiting.py",
            "support/observe/workers.py",
        ),
        ("tests/test_logs.py", "tests/test_metrics.py", "tests/test_world_close.py", "tests/mutation/plays.py"),
    ),
    "proofs": (
        (
            "support/faults/fault.py",
            "support/faults/gpu.py",
            "support/faults/network.py",
            "support/faults/processes.py",
            "support/faults/victims.py",
            "support/world/faults.py",
            "support/world/injectors.py",
        ),
        ("tests/test_strike.py", "tests/test_words.py", "tests/mutation/plays.py"),
    ),
}
"""Room -> the modules that are changed, and the tests that have to notice: those that run in this process alone."""

DESELECTED = ("tests/test_results.py::test_the_program_leaves_a_table_figures_and_a_picture",)
"""Of those, the ones that start a program, in which there is no mutant."""
