"""Allure results of behave runs: what allure-behave 2.16.2 gets wrong is put right here.

Unpatched, a failed before_scenario shows as skipped, a failed after_scenario or cleanup as passed, a failed
before_feature and everything under ``Rule:`` vanishes, reasons of skips are lost, a skip inside a step leaks its steps
into the next scenario, and the same scenario on two Dynamo versions collapses into one with a "retry".
"""

import os
import socket
import traceback
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

from allure_behave.formatter import AllureFormatter
from allure_behave.listener import AllureListener
from allure_behave.utils import scenario_status, scenario_status_details
from allure_commons.model2 import Label, Parameter, Status, StatusDetails, TestResult
from allure_commons.utils import md5, now, uuid4

from support.judge.verdict import Verdict
from support.report import wording

SUPPORTED = "2.16.2"

STATUSES = {
    "passed": Status.PASSED,
    "failed": Status.FAILED,
    "inconclusive": Status.BROKEN,
    "known_defect": Status.FAILED,
    "skipped": Status.SKIPPED,
}
"""Verdict -> Allure status. A known defect is a failure that Allure shows as accepted (``known``)."""

_verdict: Verdict | None = None
_parameters: dict[str, str] = {}
_cleanup_error: str = ""


def set_verdict(verdict: Verdict, parameters: Mapping[str, str]) -> None:
    """Say what the running scenario's Allure result shall be; called from after_scenario.

    Args:
        verdict: replaces the status that behave's steps add up to.
        parameters: what the scenario ran on (``target``, ``engine``, ``dynamo``): shown, and part of the scenario's
            identity in histories.
    """
    global _verdict
    _verdict = verdict
    _parameters.clear()
    _parameters.update(parameters)


def on_cleanup_error(context: Any, cleanup: Callable[..., Any], error: Exception) -> None:
    """For ``context.on_cleanup_error``: behave itself forgets what went wrong in a cleanup."""
    global _cleanup_error
    _cleanup_error = f"{getattr(cleanup, '__name__', cleanup)} failed in cleanup: {type(error).__name__}: {error}"
    traceback.print_exception(error)


def install() -> None:
    """Patch allure-behave in this process; a second call changes nothing.

    Raises:
        RuntimeError: another version of allure-behave is installed.
    """
    found = version("allure-behave")
    if found != SUPPORTED:
        raise RuntimeError(
            f"allure-behave {found} is installed, but its patch is for {SUPPORTED}; install that version"
        )
    AllureListener.start_scenario = _start_scenario
    AllureListener.stop_scenario = _stop_scenario
    AllureFormatter.feature = _feature
    AllureFormatter.eof = _eof


def labels(location: str, feature: str, category: str) -> list[Label]:
    """What every result carries besides behave's own labels: where it is from, where it ran, and whose trouble it is.

    Args:
        location: ``features/x.feature:12``.
        feature: the feature's name.
        category: key of :data:`support.report.wording.CATEGORIES`; the report is grouped by it.
    """
    return [
        Label("location", location),
        Label("host", socket.gethostname()),
        Label("thread", os.environ.get("FT_SLOT", "behave")),
        Label("category", category),
        Label("parentSuite", wording.CATEGORIES[category]),
        Label("suite", feature),
    ]


def details(verdict: Verdict, trace: str = "") -> StatusDetails:
    """Message and trace of a verdict: who is to blame in the first line, then every finding."""
    listing = wording.listing(verdict.findings)
    return StatusDetails(
        known=verdict.verdict == "known_defect" or None,
        message=wording.headline(verdict) or None,
        trace="\n\n".join(part for part in (listing, trace) if part) or None,
    )


def synthetic(verdict: Verdict, parameters: Mapping[str, str]) -> TestResult:
    """A result for a scenario whose process left none; it ends now and began ``verdict.seconds`` ago."""
    stop = now()
    return TestResult(
        uuid=uuid4(),
        name=verdict.name,
        fullName=f"{verdict.feature}: {verdict.name}",
        historyId=md5(
            verdict.feature, verdict.name, *(f"{name}={value}" for name, value in sorted(parameters.items()))
        ),
        status=STATUSES[verdict.verdict],
        statusDetails=details(verdict),
        labels=[
            *labels(verdict.location, verdict.feature, wording.category(verdict)),
            Label("feature", verdict.feature),
            *(Label("tag", tag) for tag in verdict.tags),
        ],
        parameters=[Parameter(name, value) for name, value in parameters.items()],
        start=stop - round(verdict.seconds * 1000),
        stop=stop,
    )


def location_of(scenario: Any) -> str:
    """``features/x.feature:12`` of a behave scenario."""
    return f"{scenario.filename}:{scenario.line}"


def _start_scenario(listener: AllureListener, scenario: Any) -> None:
    global _verdict, _cleanup_error
    _verdict, _cleanup_error = None, ""
    _parameters.clear()
    listener.steps.clear()
    _stock_start(listener, scenario)
    # In the stock code the session's own logger may still hold a parameter list of None.
    result = listener.logger.get_test(listener.current_scenario_uuid)
    result.parameters = list(result.parameters or [])
    scenario.was_reported = True


def _stop_scenario(listener: AllureListener, scenario: Any) -> None:
    if _verdict is None and scenario.status == "skipped" and not scenario.skip_reason:
        listener.logger.drop_test(listener.current_scenario_uuid)
    else:
        listener.flush_steps()
        _finish(listener.logger.get_test(listener.current_scenario_uuid), scenario)
        listener.logger.close_test(listener.current_scenario_uuid)
        listener.group_context.append_test(listener.current_scenario_uuid)
    listener.group_context.exit()
    listener.current_step_uuid = listener.current_scenario_uuid = None


def _finish(result: TestResult, scenario: Any) -> None:
    trouble = _cleanup_error if scenario.status.name == "cleanup_error" else ""
    if scenario.hook_failed:
        trouble = scenario.error_message
    verdict = None if trouble and _verdict and _verdict.verdict != "failed" else _verdict
    result.stop = now()
    category = wording.category(verdict) if verdict else "skipped" if scenario.status == "skipped" else "suite"
    result.labels += labels(location_of(scenario), scenario.feature.name, category)
    shown = {parameter.name for parameter in result.parameters}
    result.parameters += [Parameter(name, value) for name, value in _parameters.items() if name not in shown]
    result.historyId = md5(result.historyId, *(f"{name}={value}" for name, value in sorted(_parameters.items())))
    stock = scenario_status_details(scenario)
    if verdict:
        result.status = STATUSES[verdict.verdict]
        result.statusDetails = details(verdict, "\n\n".join(filter(None, [stock and stock.trace, trouble])))
    elif trouble:
        result.status, result.statusDetails = Status.BROKEN, StatusDetails(message=trouble)
    elif scenario.status == "untested":
        result.status, result.statusDetails = Status.BROKEN, StatusDetails(message="did not run: behave was aborted")
    elif scenario.status == "skipped":
        result.status, result.statusDetails = Status.SKIPPED, StatusDetails(message=scenario.skip_reason)
    else:
        result.status, result.statusDetails = scenario_status(scenario) or Status.BROKEN, stock


def _feature(formatter: AllureFormatter, feature: Any) -> None:
    formatter.current_feature = feature
    for scenario in feature.walk_scenarios():
        formatter._wrap_scenario([scenario])


def _eof(formatter: AllureFormatter) -> None:
    """Report the scenarios that a failed before_feature kept from starting."""
    feature, listener = formatter.current_feature, formatter.listener
    if feature.hook_failed:
        for scenario in feature.walk_scenarios():
            if not hasattr(scenario, "was_reported") and scenario.should_run(listener.behave_config):
                listener.start_scenario(scenario)
                scenario.hook_failed, scenario.error_message = True, feature.error_message
                listener.stop_scenario(scenario)
    listener.stop_feature()


_stock_start = AllureListener.start_scenario
