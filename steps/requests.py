"""Sentences about clients: what they send, and how they give up."""

from behave import given, when

from support.marks import marks
from support.run.runtime import Context
from support.words import REQUEST_OPTIONS, options


def send(context: Context, count=1, **request):
    """Send ``count`` requests that the scenario is about."""
    return [context.world.clients.send(**request, **options(context.table, REQUEST_OPTIONS)) for _ in range(count)]


@given("a client is receiving a {stream:Mode} {api:Api} answer of {tokens:Count} tokens")
@marks(table="request", brings="request answer")
def given_receiving(context: Context, stream, api, tokens):
    """A client has sent a request, and its answer is coming in. The ruler holds it 20 tokens before its end until the
    first "Then".

    Waits: until the first tokens are there; of a unary answer, until a worker writes.
    Proof: the client's tokens, and the bytes that the worker has sent.
    Also: streaming, user, chat.
    """
    send(context, stream=stream, api=api, max_tokens=tokens, hold="end")
    context.world.answers.see_under_way()


@given("a client is receiving a {stream:Mode} {api:Api} answer that takes at least {time:Time}")
@marks(table="request", brings="request answer")
def given_receiving_for(context: Context, stream, api, time):
    """A client is receiving an answer with as many tokens as take this long on an idle machine; on a busy one it gets
    more.

    Time: from the first token to the last one, at the worker's usual speed.
    Waits: until the first tokens are there; of a unary answer, until a worker writes.
    Proof: the client's tokens, and the bytes that the worker has sent.
    """
    given_receiving(context, stream, api, context.world.clients.tokens_for(time))


@given("{count:Count} clients are receiving {stream:Mode} {api:Api} answers of {tokens:Count} tokens")
@marks(table="request", brings="request answer")
def given_many_receiving(context: Context, count, stream, api, tokens):
    """Several clients have sent a request each, and their answers are coming in. The ruler holds them 20 tokens before
    their end until the first "Then".

    Waits: until every client has its first tokens.
    Proof: the clients' tokens, and the bytes that a worker has sent.
    Also: concurrent, parallel, users.
    """
    send(context, count, stream=stream, api=api, max_tokens=tokens, hold="end")
    context.world.answers.see_under_way()


@given(
    "a client is asking for {count:Count} {stream:Mode} {api:Api} answers of {tokens:Count} tokens, one after the other"
)
@marks(brings="request answer")
def given_in_turn(context: Context, count, stream, api, tokens):
    """One client sends these requests, each when the answer before it has ended.

    Waits: no.
    Proof: what "Then" says of its answers.
    Also: sequence, series, conversation.
    """
    context.world.clients.send_in_turn(count, stream=stream, api=api, max_tokens=tokens)


@given("a client is waiting for the first token of a {stream:Mode} {api:Api} answer of {tokens:Count} tokens")
@marks(table="request", brings="request answer")
def given_waiting(context: Context, stream, api, tokens):
    """A worker has the request, and the client has no token of its answer. The ruler holds it back until the fault is
    proven or the first "Then".

    Waits: until a worker has the request.
    Proof: the worker's own count of requests in flight; the client has no token.
    Also: prefill, time to first token.
    """
    send(context, stream=stream, api=api, max_tokens=tokens, hold="start")
    context.world.answers.see_waiting()


@given("a worker has written every token of a {stream:Mode} {api:Api} answer of {tokens:Count} tokens, but not its end")
@marks(table="request", brings="request answer", engine="ruler")
def given_written(context: Context, stream, api, tokens):
    """A worker has sent the last token, and the stream between it and the frontend is still open. The ruler keeps it
    open until the first "Then".

    Waits: until the worker has written the last token, and the client of a stream has it.
    Proof: the ruler's own journal, and the client's tokens.
    """
    send(context, stream=stream, api=api, max_tokens=tokens, hold="finish")
    context.world.answers.see_written()


@given("a client has received a {stream:Mode} {api:Api} answer of {tokens:Count} tokens")
@marks(table="request", brings="request answer")
def given_received(context: Context, stream, api, tokens):
    """A client has its whole answer; nothing is in flight.

    Waits: until the answer has ended.
    Proof: the client's own record of every token.
    """
    send(context, stream=stream, api=api, max_tokens=tokens)
    context.world.answers.one()


@when("the client {way:Way} the connection")
@marks(needs="answer")
def when_gives_up(context: Context, way):
    """The client ends its TCP connection mid-answer: closes it (FIN) or resets it (RST).

    Waits: no.
    Proof: the answer had not ended.
    Also: cancel, abort, disconnect, close the browser or the tab, client leaves.
    """
    context.world.clients.cancel(context.world.clients.request, way)


@when("the client {way:Way} the connection while the request is being moved")
@marks(needs="answer", engine="ruler")
def when_gives_up_on_the_move(context: Context, way):
    """The client ends its TCP connection while Dynamo moves the request: a second worker has it, the client has none of
    its tokens.

    Waits: until a second worker has the request.
    Proof: the ruler's own journals.
    Also: cancel during migration, disconnect, browser, tab.
    """
    context.world.answers.see_moving()
    context.world.clients.cancel(context.world.clients.request, way)


@when("the client {way:Way} the connection after the answer")
@marks(needs="answer")
def when_gives_up_late(context: Context, way):
    """The client ends its TCP connection when its answer is complete.

    Waits: no.
    Proof: the answer had ended.
    Also: disconnect, browser, tab.
    """
    context.world.clients.cancel_ended(context.world.clients.request, way)


@when("one of the clients {way:Way} its connection")
@marks(needs="answer")
def when_one_gives_up(context: Context, way):
    """One of several clients ends its TCP connection; the others go on.

    Waits: no.
    Proof: the answer had not ended.
    Also: cancel, abort, disconnect, browser, tab.
    """
    context.world.clients.cancel(context.world.clients.watched[0], way)


@when("every client {way:Way} its connection at once")
@marks(needs="answer")
def when_all_give_up(context: Context, way):
    """All clients end their TCP connections, as fast as one thread can.

    Waits: no.
    Proof: no answer had ended.
    Also: cancel, abort, disconnect, browser, tab, mass disconnect.
    """
    for pending in context.world.clients.watched:
        context.world.clients.cancel(pending, way)
