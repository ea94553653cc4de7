"""Sentences about clients: what they send, and how they give up."""

from behave import given, when

from support.marks import marks
from support.run.runtime import Context
from support.words import REQUEST_OPTIONS, options


def send(context: Context, count=1, **request):
    """Send ``count`` requests that the scenario is about."""
    return [context.world.clients.send(**request, **options(context.table, REQUEST_OPTIONS)) for _ in range(count)]


@given("a client is receiving a {stream:Mode} {api:Api} answer of {tokens:Count} tokens")
@marks(table="request", brings="request")
def given_receiving(context: Context, stream, api, tokens):
    """The answer is under way: its first tokens are there, or, where the client sees none, a worker produces them."""
    send(context, stream=stream, api=api, max_tokens=tokens, hold="end")
    context.world.answers.see_under_way()


@given("a client is receiving a {stream:Mode} {api:Api} answer that takes at least {time:Time}")
@marks(table="request", brings="request")
def given_receiving_for(context: Context, stream, api, time):
    """So many tokens that the answer takes that long on an idle machine, and more on a slow one."""
    given_receiving(context, stream, api, context.world.clients.tokens_for(time))


@given("{count:Count} clients are receiving {stream:Mode} {api:Api} answers of {tokens:Count} tokens")
@marks(table="request", brings="request")
def given_many_receiving(context: Context, count, stream, api, tokens):
    """The same for many clients at once."""
    send(context, count, stream=stream, api=api, max_tokens=tokens, hold="end")
    context.world.answers.see_under_way()


@given(
    "a client is asking for {count:Count} {stream:Mode} {api:Api} answers of {tokens:Count} tokens, one after the other"
)
@marks(brings="request")
def given_in_turn(context: Context, count, stream, api, tokens):
    """Each request is sent as soon as the answer before it has ended; the steps go on meanwhile."""
    context.world.clients.send_in_turn(count, stream=stream, api=api, max_tokens=tokens)


@given("a client keeps asking for {stream:Mode} {api:Api} answers of {tokens:Count} tokens")
@marks(brings="request")
def given_keeps_asking(context: Context, stream, api, tokens):
    """One after the other until a sentence speaks of every answer; the first is under way when the step returns."""
    context.world.clients.keep_asking(stream=stream, api=api, max_tokens=tokens)
    context.world.answers.await_answers(1)


@given("a client is waiting for the first token of a {stream:Mode} {api:Api} answer of {tokens:Count} tokens")
@marks(table="request", brings="request")
def given_waiting(context: Context, stream, api, tokens):
    """A worker has the request, the client has nothing yet."""
    send(context, stream=stream, api=api, max_tokens=tokens, hold="start")
    context.world.answers.see_waiting()


@given("a client has received a {stream:Mode} {api:Api} answer of {tokens:Count} tokens")
@marks(table="request", brings="request")
def given_received(context: Context, stream, api, tokens):
    """The answer is complete."""
    send(context, stream=stream, api=api, max_tokens=tokens)
    context.world.answers.one()


@when("the client {way:Way} the connection")
@marks(needs="request")
def when_gives_up(context: Context, way):
    """Ends the TCP connection of a request that is under way: by an orderly close (FIN) or a reset (RST)."""
    context.world.clients.cancel(context.world.clients.request, way)


@when("the client {way:Way} the connection while the request is being moved")
@marks(needs="request")
def when_gives_up_on_the_move(context: Context, way):
    """A second worker has been given the request and the client has none of its tokens yet."""
    context.world.answers.see_moving()
    context.world.clients.cancel(context.world.clients.request, way)


@when("the client {way:Way} the connection after the answer")
@marks(needs="request")
def when_gives_up_late(context: Context, way):
    """Nothing is under way any more."""
    context.world.clients.cancel_ended(context.world.clients.request, way)


@when("one of the clients {way:Way} its connection")
@marks(needs="request")
def when_one_gives_up(context: Context, way):
    """The others go on."""
    context.world.clients.cancel(context.world.clients.watched[0], way)


@when("every client {way:Way} its connection at once")
@marks(needs="request")
def when_all_give_up(context: Context, way):
    """As fast as one thread can."""
    for pending in context.world.clients.watched:
        context.world.clients.cancel(pending, way)
