"""Wires behave's hooks to the suite; everything else is in support/."""

import sys
from pathlib import Path

from behave import register_type
from behave.model_type import Status

from steps.lint import recovery_of, refuse_mistakes
from support import activity
from support.report import allure
from support.run.runtime import Ended, Run, enter_cell, failure_of, launched, refuse_other_folder
from support.words import TYPES

refuse_other_folder(Path(__file__).parent)
register_type(**TYPES)
# At once, for a dry run calls no hook. It does not tell formatters of an unknown sentence either: what they show of all
# later ones would be a step off. A launcher has had its feature files looked through before.
if not launched():
    refuse_mistakes(sys.argv[1:])


def before_all(context):
    """Move into a cell, where the target has cells and this process is in none, and begin the run."""
    enter_cell(sys.argv[1:], context.config.userdata)
    context.on_cleanup_error = allure.on_cleanup_error
    context.run = Run.begin(context.config.userdata)


def before_scenario(context, scenario):
    """Skip what this target or release cannot do; make the scenario's world."""
    context.world = None
    reason = context.run.reason_to_skip(allure.location_of(scenario), scenario.effective_tags)
    if reason:
        scenario.skip(reason)
    else:
        context.world = context.run.make_world(allure.location_of(scenario))
        workload = context.world.workload
        workload.recovery_seconds = max(workload.recovery_seconds, recovery_of(scenario))


def before_step(context, step):
    """Tell whoever watches; answers that are held until the faults are proven go on at the first sentence about their
    outcome.
    """
    activity.begin_step(f"{step.keyword} {step.name}")
    if step.step_type == "then" and context.world is not None:
        context.world.stage.let_go()


def after_scenario(context, scenario):
    """Take the world down, judge its history, and tell behave and Allure the verdict."""
    broken = next((step for step in scenario.all_steps if step.status.has_failed()), None)
    ended = Ended(
        feature=scenario.feature.name,
        name=scenario.name,
        location=allure.location_of(scenario),
        tags=allure.tags_of(scenario),
        skipped=scenario.skip_reason or "",
        failed_step=f"{broken.keyword} {broken.name}" if broken else "",
        failure=broken and failure_of(broken),
        interrupted=context.aborted,
    )
    verdict = context.run.judge(context.world, ended)
    allure.set_verdict(verdict, context.run.parameters(context.world))
    if verdict.verdict not in ("passed", "skipped") and not broken:
        scenario.set_status(Status.error if verdict.verdict == "inconclusive" else Status.failed)
