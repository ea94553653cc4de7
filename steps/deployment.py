"""Sentences about the deployment: what it is made of, and what joins it later."""

from behave import given, then, when

from support.targets.base import Unsupported
from support.words import SHAPE_OPTIONS, options


def deploy(context, **shape):
    """Make the deployment; what the chosen Dynamo release cannot do skips the scenario."""
    try:
        context.world.start_deployment(**shape, **options(context.table, SHAPE_OPTIONS))
    except Unsupported as reason:
        context.scenario.skip(str(reason))


@given("a Dynamo deployment with {count:Count} {engine:Engine} {noun:Noun}")
def given_aggregated(context, count, engine, noun):
    """Each worker answers requests from first to last token. The table below may set the SHAPE_OPTIONS of
    support/words.py.
    """
    deploy(context, engine=engine, workers=count)


@given("a Dynamo deployment with {count:Count} {engine:Engine} {noun:Noun} over {plane:Plane}")
def given_over_plane(context, count, engine, noun, plane):
    """The same over a request plane that the sentence names."""
    deploy(context, engine=engine, workers=count, request_plane=plane)


@given(
    "a disaggregated Dynamo deployment with {prefill:Count} prefill and {decode:Count} decode {engine:Engine} workers"
)
def given_disaggregated(context, prefill, decode, engine):
    """Prefill workers read the prompt, decode workers write the answer."""
    deploy(context, engine=engine, prefill_workers=prefill, workers=decode)


@when("a new worker joins the deployment")
def when_worker_joins(context):
    """Returns once the frontend lists it."""
    context.world.deployment.add_worker()


@then("within {timeout:Time} the frontend lists {count:Count} {noun:Noun}")
def then_lists(context, timeout, count, noun):
    """Workers as the frontend's health page lists them."""
    context.world.fleet.expect_listed(count, timeout)
