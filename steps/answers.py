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
@marks(needs="answer", whole=True)
def then_completes(context: Context, tokens):
    """The answer has that many tokens, one finish reason, one end and no error.

    Waits: until the answer has ended.
    Proof: the client's own record of every token.
    Also: whole, succeeds, nothing is lost.
    """
    expect_complete(context.world.answers.one(), tokens)


@then("the answer completes with all of its tokens")
@marks(needs="answer", whole=True)
def then_completes_whole(context: Context):
    """The answer has as many tokens as the client asked for, one finish reason, one end and no error.

    Waits: until the answer has ended.
    Proof: the client's own record of every token.
    Also: whole, succeeds, nothing is lost.
    """
    then_completes(context, context.world.clients.request.entry.max_tokens)


@then("the answer completes with all of its tokens, no more than {time:Time} late")
@marks(needs="answer", whole=True)
def then_completes_in_time(context: Context, time):
    """The answer is whole, and takes no longer than undisturbed plus this time.

    Time: from the sending of the request, minus the time that the answer takes on an undisturbed worker.
    Waits: until the answer has ended.
    Proof: the client's own record of every token.
    Also: delay, latency, deadline.
    """
    context.world.answers.expect_no_later(time)


@then("within {timeout:Time} the answer completes with {tokens:Count} tokens")
@marks(needs="answer", whole=True)
def then_completes_within(context: Context, timeout, tokens):
    """The answer is whole, and ends in time.

    Time: from the last fault; without a fault from the sending of the request.
    Waits: until the answer has ended.
    Proof: the client's own record of every token.
    """
    expect_complete(context.world.answers.ended_within(timeout), tokens)


@then("every answer completes with {tokens:Count} tokens")
@marks(needs="request", whole=True)
def then_all_complete(context: Context, tokens):
    """Each answer that no client gave up has that many tokens and is whole.

    Waits: until every answer and the load have ended.
    Proof: the client's own record of every token.
    """
    for entry in context.world.answers.all():
        expect_complete(entry, tokens)


@then("every other answer completes with {tokens:Count} tokens")
@marks(needs="request", whole=True)
def then_others_complete(context: Context, tokens):
    """Each answer is whole and has that many tokens, except those that a client gave up and those of the requests that
    the victim of a fault had when it was hit.

    Waits: until every answer and the load have ended.
    Proof: the client's own record of every token; who had which request, the journals and logs of the workers say.
    """
    for entry in context.world.answers.others():
        expect_complete(entry, tokens)


@then("the requests in flight fail, each in a clean error, and no other fails")
@marks(needs="request fault")
def then_hit_fail(context: Context):
    """Each request that the victim of a fault had when it was hit ends in a clean error; every other one has a whole
    answer. If the victim had none, the scenario is inconclusive.

    Waits: until every answer and the load have ended.
    Proof: the client's own record of every token; who had which request, the journals and logs of the workers say.
    Also: blast radius, errors.
    """
    context.world.answers.expect_only_hit_fail()


@then("a new request is served as fast as before the fault")
@marks(needs="request fault", running=True)
def then_as_fast(context: Context):
    """A new request like those before is whole, and as fast as they were, see [Words](#words). While the fault lasts,
    if no time ends it and no sentence undoes it before this one: then it compares an outage with the time before it.

    Waits: until the answer has ended.
    Proof: the client's own record of every token; a client that lags by a fifth of what is allowed proves nothing.
    Also: latency, regression, slow down, performance during an outage.
    """
    context.world.answers.expect_as_fast()


@then("every token arrives exactly once and in order")
@marks(needs="request", engine="ruler")
def then_positions(context: Context):
    """No token of an answer is lost, repeated, out of order or invented.

    Waits: until every answer and the load have ended.
    Proof: the token itself: the ruler writes its position into it.
    Also: lost tokens, duplicates, repeated, garbled, corrupt.
    """
    for entry in context.world.answers.all():
        expect_positions(entry)


@then("the usage is the same as without the fault")
@marks(needs="answer")
def then_usage(context: Context):
    """The client pays for its prompt and its answer, not for what Dynamo sends again to another worker.

    Waits: until the answer has ended.
    Proof: the usage in the answer, compared with the tokens that the client sent and got.
    Also: billing, cost, charged twice.
    """
    expect_usage(context.world.answers.one())


@then("the answer arrives with no pause longer than {timeout:Time}")
@marks(needs="answer")
def then_no_pause(context: Context, timeout):
    """No two tokens of the answer are further apart than this.

    Time: from each token to the next one.
    Waits: until the answer has ended.
    Proof: the client's own record of every token.
    Also: stall, stutter, gap, inter-token latency, ITL.
    """
    expect_no_pause(context.world.answers.one(), timeout)


@then("no client waits longer than {timeout:Time} for a token")
@marks(needs="request")
def then_prompt(context: Context, timeout):
    """No client waits longer than this, be it for its first token or between two tokens.

    Time: from the moment a request is due to its first token, and from each token to the next one.
    Waits: until every answer and the load have ended.
    Proof: the client's own record of every token.
    Also: stall, time to first token, TTFT, latency.
    """
    for entry in context.world.answers.all():
        expect_prompt(entry, timeout)


@then("within {timeout:Time} the answer ends in a clean error")
@marks(needs="answer")
def then_clean_error(context: Context, timeout):
    """The client gets an error that says so, and nothing that it could take for an answer.

    Time: from the last fault; without a fault from the sending of the request.
    Waits: until the answer has ended.
    Proof: the client's own record of every token.
    Also: error message, status, 500, 503, fails cleanly.
    """
    expect_clean_error(context.world.answers.ended_within(timeout))
