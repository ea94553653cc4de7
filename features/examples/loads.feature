@examples
Feature: Clients keep asking while something breaks
  Examples of what can be said about clients, loads and times. A client that keeps asking sends its next request when it
  has its answer, and so do four or forty.

  # The load begins with its sentence. Any sentence may break something while it goes on.
  @ruler
  Scenario: A client keeps asking while a worker crashes
    Given a Dynamo deployment with 2 ruler workers
    And a client keeps asking for streamed completions answers of 40 tokens
    When the worker serving the request crashes mid-answer
    Then every answer completes with 40 tokens
    And every token arrives exactly once and in order

  @vllm
  Scenario: Four clients keep asking until the crashed worker is back
    Given a Dynamo deployment with 2 vllm workers
      | setting        | value  |
      | restart policy | Always |
    And 4 clients keep asking for streamed chat answers of 40 tokens
    When a worker crashes
    Then within ten seconds the crashed worker runs again
    And every request succeeds

  @ruler
  Scenario: One client gives up and every other one has its answer
    Given a Dynamo deployment with 1 ruler worker
    And 3 clients are receiving streamed completions answers of 200 tokens
    When one of the clients closes its connection
    Then every other answer completes with 200 tokens

  # Without migration an answer ends with its worker.
  @ruler
  Scenario: A crash without migration hurts nobody but who was on that worker
    Given a Dynamo deployment with 2 ruler workers
      | setting         | value |
      | migration limit | 0     |
    And 6 clients are receiving streamed completions answers of 200 tokens
    When the busiest worker crashes
    Then every other answer completes with 200 tokens

  @ruler
  Scenario: A crash without migration ends in clean errors
    Given a Dynamo deployment with 2 ruler workers
      | setting         | value |
      | migration limit | 0     |
    And 6 clients are receiving streamed chat answers of 200 tokens
    When the busiest worker crashes
    Then the requests in flight fail, each in a clean error, and no other fails

  # Two clients, so that the workers that are left have time for both. While another one got 100 tokens, each of them
  # got several answers: how fast those were is known.
  @vllm
  Scenario: Nobody is served more slowly with one worker less
    Given a Dynamo deployment with 3 vllm workers
    And 2 clients keep asking for streamed completions answers of 20 tokens
    And a client has received a streamed completions answer of 100 tokens
    When the busiest worker is shut down
    Then a new request is served as fast as before the fault

  # A load that is needed for longer goes on for longer.
  @vllm
  Scenario: Requests succeed for ten seconds after a worker has hung
    Given a Dynamo deployment with 2 vllm workers
    And 4 clients keep asking for streamed completions answers of 40 tokens
    When after two seconds the busiest worker hangs for a second
    Then at least 99 percent of the requests succeed in RECOVERY for 10 seconds
    And every request succeeds

  @vllm @timed
  Scenario: Users wait no longer than before, nine seconds on end
    Given a Dynamo deployment with 2 vllm workers
    And 4 clients keep asking for streamed completions answers of 40 tokens
    When after 6 seconds the busiest worker hangs for a second
    Then in RECOVERY the time to first token is in the STANDARD band for nine seconds

  @vllm
  Scenario: The deployment is idle two seconds after a load
    Given a Dynamo deployment with 2 vllm workers
    And 4 clients keep asking for unary chat answers of 40 tokens for 3 seconds
    When nothing breaks
    Then two seconds after the load ends no worker has a request in flight
    And every request succeeds

  @ruler
  Scenario: A crashed worker is off the list two seconds after a load
    Given a Dynamo deployment with 2 ruler workers
      | setting | value     |
      | lease   | 3 seconds |
    And 2 clients keep asking for streamed completions answers of 40 tokens
    When a worker crashes
    Then two seconds after the load ends the frontend lists 1 worker
    And every request succeeds

  @vllm
  Scenario: Five times as many clients are served as well
    Given a Dynamo deployment with 2 vllm workers
    And 2 clients keep asking for streamed completions answers of 20 tokens
    When after two seconds five times the clients of STANDARD ask for two seconds
    Then every request succeeds
    And at least 99 percent of the requests succeed in OVERFLOW

  # A load in a table: as many clients as there are, twice over, and meanwhile a worker hangs.
  @vllm
  Scenario: A worker hangs while three times as many clients ask
    Given a Dynamo deployment with 2 vllm workers
    And 2 clients keep asking for streamed completions answers of 20 tokens
    When these failures strike
      | failure  | clients     | target             | when            | for         |
      | overload | three times |                    | after 2 seconds | 4 seconds   |
      | hangs    |             | the busiest worker | after 3 seconds | 1.5 seconds |
    Then every request succeeds

  # OVERFLOW is while the fault lasts, so this compares with before at the very time of it.
  @vllm @timed
  Scenario: Users wait no longer while etcd hangs
    Given a Dynamo deployment with 2 vllm workers
      | setting   | value |
      | discovery | etcd  |
    And 4 clients keep asking for streamed completions answers of 40 tokens
    When after 6 seconds all of etcd hangs for 5 seconds
    Then in OVERFLOW the time to first token is in the STANDARD band

  # A client that goes on after a failure would meet the same one again and again; here each would stop.
  @ruler
  Scenario: Four clients would stop at a failure and none has to
    Given a Dynamo deployment with 2 ruler workers
    And 4 clients keep asking for streamed completions answers of 40 tokens, each until one fails
    When the busiest worker crashes
    Then every answer completes with 40 tokens

  # What comes after "the load ends" finds a deployment that nobody asks for anything.
  @ruler
  Scenario: A worker crashes once the load has ended
    Given a Dynamo deployment with 2 ruler workers
    And a client keeps asking for streamed completions answers of 40 tokens for 3 seconds
    When the load ends
    And an idle worker crashes
    Then a new request succeeds within half a minute
    And every answer completes with 40 tokens
