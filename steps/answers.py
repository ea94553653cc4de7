"""Sentences about answers, as the client has them."""

from behave import then

from support.judge.expectations import (
    expect_clean_error,
    expect_complete,
    expect_no_pause,
    expect_positions,
    expect_prompt,
    expect_usage,
)
from support.marks import marks
from support.run.runtime import Context


@then("the answer completes with {tokens:Count} tokens")
@marks(needs="request", whole=True)
def then_completes(context: Context, tokens):
    """All tokens, one finish reason, one end, no error."""
    expect_complete(context.world.answers.one(), tokens)


@then("the answer completes with all of its tokens")
@marks(needs="request", whole=True)
def then_completes_whole(context: Context):
    """As many as were asked for, one finish reason, one end, no error."""
    then_completes(context, context.world.clients.request.entry.max_tokens)


@then("the answer completes with all of its tokens, no more than {time:Time} late")
@marks(needs="request", whole=True)
def then_completes_in_time(context: Context, time):
    """Later than it would without the fault."""
    context.world.answers.expect_no_later(time)


@then("within {timeout:Time} the answer completes with {tokens:Count} tokens")
@marks(needs="request", whole=True)
def then_completes_within(context: Context, timeout, tokens):
    """Counted from the last fault, or from the sending where there is none."""
    expect_complete(context.world.answers.ended_within(timeout), tokens)


@then("every answer completes with {tokens:Count} tokens")
@marks(needs="request", whole=True)
def then_all_complete(context: Context, tokens):
    """The same for each of many requests that nobody cancelled."""
    for entry in context.world.answers.all():
        expect_complete(entry, tokens)


@then("every position comes once and in order")
@marks(needs="request")
def then_positions(context: Context):
    """For the ruler engine: nothing lost, repeated, reordered or invented."""
    for entry in context.world.answers.all():
        expect_positions(entry)


@then("the usage is what it would have been without the fault")
@marks(needs="request")
def then_usage(context: Context):
    """The client is billed for its prompt and its answer, not for what a migration replays."""
    expect_usage(context.world.answers.one())


@then("the answer comes without a pause of more than {timeout:Time}")
@marks(needs="request")
def then_no_pause(context: Context, timeout):
    """Between any two tokens."""
    expect_no_pause(context.world.answers.one(), timeout)


@then("no answer keeps its client waiting for more than {timeout:Time}")
@marks(needs="request")
def then_prompt(context: Context, timeout):
    """For the first token or between any two; asks for no more requests, as every sentence about all answers."""
    for entry in context.world.answers.all():
        expect_prompt(entry, timeout)


@then("within {timeout:Time} the answer ends in a clean error")
@marks(needs="request")
def then_clean_error(context: Context, timeout):
    """An error that says so, nothing that passes for a complete answer; counted from the last fault."""
    expect_clean_error(context.world.answers.ended_within(timeout))
