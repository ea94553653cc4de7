"""Sentences about clients: what they send, and how they give up."""

from behave import given, when

from support.words import REQUEST_OPTIONS, options

FIRST_TOKENS = 10


def send(context, count=1, **request):
    """Send ``count`` requests that the scenario is about."""
    return [context.world.send(**request, **options(context.table, REQUEST_OPTIONS)) for _ in range(count)]


@given("a client is receiving a {stream:Mode} {api:Api} answer of {tokens:Count} tokens")
def given_receiving(context, stream, api, tokens):
    """The answer is under way: its first tokens are there, or, where the client sees none, a worker produces them."""
    send(context, stream=stream, api=api, max_tokens=tokens)
    context.world.see_under_way(FIRST_TOKENS)


@given("{count:Count} clients are receiving {stream:Mode} {api:Api} answers of {tokens:Count} tokens")
def given_many_receiving(context, count, stream, api, tokens):
    """The same for many clients at once."""
    send(context, count, stream=stream, api=api, max_tokens=tokens)
    context.world.see_under_way(FIRST_TOKENS)


@given("a client is waiting for the first token of a {stream:Mode} {api:Api} answer of {tokens:Count} tokens")
def given_waiting(context, stream, api, tokens):
    """A worker has the request, the client has nothing yet."""
    send(context, stream=stream, api=api, max_tokens=tokens)
    context.world.see_waiting()


@given("a client has received a {stream:Mode} {api:Api} answer of {tokens:Count} tokens")
def given_received(context, stream, api, tokens):
    """The answer is complete."""
    send(context, stream=stream, api=api, max_tokens=tokens)
    context.world.request.join()


@when("a client asks for a {stream:Mode} {api:Api} answer of {tokens:Count} tokens")
def when_asks(context, stream, api, tokens):
    """Sends a request and does not wait for anything."""
    send(context, stream=stream, api=api, max_tokens=tokens)


@when("the client {way:Way} the connection")
def when_gives_up(context, way):
    """Ends the TCP connection of a request that is under way: by an orderly close (FIN) or a reset (RST)."""
    context.world.cancel(context.world.request, way)


@when("one of the clients {way:Way} its connection")
def when_one_gives_up(context, way):
    """The others go on."""
    context.world.cancel(context.world.watched[0], way)


@when("all clients {way:Way} their connections at once")
def when_all_give_up(context, way):
    """As fast as one thread can."""
    for pending in context.world.watched:
        context.world.cancel(pending, way)
