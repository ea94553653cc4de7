@migration
Feature: A worker dies and its answers continue
  When a worker is lost mid-answer, Dynamo moves the request to another worker. The client gets every token once and
  in order, a single end, and the bill of an undisturbed request. Where Dynamo cannot do that, the client gets a clean
  error.

  # The two tables together cover every pair of engine, API, mode and request plane.
  @<engine>
  Scenario Outline: The worker crashes in the middle of a stream (<engine>, <api>, <plane>)
    Given a Dynamo deployment with 2 <engine> workers over <plane>
    And a client is receiving a streamed <api> answer that takes at least 2 seconds
    When the worker serving the request crashes mid-answer
    Then the answer completes with all of its tokens
    And the answer arrives with no pause longer than 2 seconds
    And the frontend counts 1 migration
    And another worker served the rest

    Examples:
      | engine | api         | plane |
      | vllm   | completions | tcp   |
      | sglang | chat        | tcp   |
      | trtllm | completions | tcp   |
      | ruler  | chat        | tcp   |

    @nats
    Examples: over NATS
      | engine | api         | plane |
      | vllm   | chat        | nats  |
      | ruler  | completions | nats  |

  @<engine>
  Scenario Outline: The worker crashes during a unary answer (<engine>, <api>, <plane>)
    Given a Dynamo deployment with 2 <engine> workers over <plane>
    And a client is receiving a unary <api> answer that takes at least 2 seconds
    When the worker serving the request crashes mid-answer
    Then the answer completes with all of its tokens, no more than 10 seconds late
    And the frontend counts 1 migration
    And another worker served the rest

    Examples:
      | engine | api         | plane |
      | vllm   | chat        | tcp   |
      | sglang | completions | tcp   |
      | ruler  | completions | tcp   |

    @nats
    Examples: over NATS
      | engine | api         | plane |
      | trtllm | chat        | nats  |
      | sglang | completions | nats  |

  @ruler @smoke
  Scenario: Every token comes once and in order when the worker crashes mid-answer
    Given a Dynamo deployment with 2 ruler workers
    And a client is receiving a streamed completions answer of 200 tokens
    When the worker serving the request crashes mid-answer
    Then the answer completes with 200 tokens
    And every token arrives exactly once and in order
    And the frontend counts 1 migration
    And another worker served the rest

  @<engine>
  Scenario Outline: A moved request is billed like an undisturbed one (<engine>, <mode> <api>)
    Given a Dynamo deployment with 2 <engine> workers
    And a client is receiving a <mode> <api> answer that takes at least 2 seconds
      | setting | value |
      | usage   | yes   |
    When the worker serving the request crashes mid-answer
    Then the answer completes with all of its tokens
    And the usage is the same as without the fault

    Examples:
      | engine | mode     | api         |
      | ruler  | streamed | completions |
      | vllm   | streamed | chat        |

  @ruler
  Scenario Outline: The worker crashes after the last token (<mode>)
    Given a Dynamo deployment with 2 ruler workers
    And a worker has written every token of a <mode> completions answer of 50 tokens, but not its end
    When the worker serving the request crashes
    Then a new request succeeds within 2 seconds
    And the answer completes with 50 tokens
    And every token arrives exactly once and in order

    Examples:
      | mode     |
      | streamed |
      | unary    |

  @ruler
  Scenario Outline: The worker crashes before the first token (<mode> <api>)
    Given a Dynamo deployment with 2 ruler workers
      | setting             | value    |
      | time to first token | 1 second |
    And a client is waiting for the first token of a <mode> <api> answer of 50 tokens
    When the worker serving the request crashes before the first token
    Then the answer completes with 50 tokens
    And every token arrives exactly once and in order
    And the frontend counts 1 migration

    Examples:
      | mode     | api         |
      | streamed | chat        |
      | unary    | completions |

  @<engine>
  Scenario Outline: A worker that is shut down finishes its answer (<engine>, streamed)
    Given a Dynamo deployment with 2 <engine> workers
    And a client is receiving a streamed completions answer that takes at least 2 seconds
    When the worker serving the request is shut down mid-answer
    Then the answer completes with all of its tokens
    And the answer arrives with no pause longer than 2 seconds
    And within 10 seconds the worker finishes the answer itself and exits
    And 4 new requests succeed within 5 seconds each

    Examples:
      | engine |
      | vllm   |
      | sglang |
      | trtllm |
      | ruler  |

  @<engine>
  Scenario Outline: A worker that is shut down finishes its answer (<engine>, unary)
    Given a Dynamo deployment with 2 <engine> workers
    And a client is receiving a unary completions answer that takes at least 2 seconds
    When the worker serving the request is shut down mid-answer
    Then the answer completes with all of its tokens
    And within 10 seconds the worker finishes the answer itself and exits
    And 4 new requests succeed within 5 seconds each

    Examples:
      | engine |
      | vllm   |
      | sglang |
      | trtllm |
      | ruler  |

  # A drain that takes too long is ended by the runtime's own deadline.
  @<engine>
  Scenario Outline: A worker whose drain deadline is shorter than the answer hands it over (<engine>, streamed)
    Given a Dynamo deployment with 2 <engine> workers
      | setting        | value    |
      | drain deadline | 1 second |
    And a client is receiving a streamed completions answer of 800 tokens
    When the worker serving the request is shut down mid-answer
    Then the answer completes with 800 tokens
    And the answer arrives with no pause longer than 2 seconds
    And within 10 seconds the worker hands the answer over and exits

    Examples:
      | engine |
      | vllm   |
      | sglang |
      | trtllm |
      | ruler  |

  @<engine>
  Scenario Outline: A worker whose drain deadline is shorter than the answer hands it over (<engine>, unary)
    Given a Dynamo deployment with 2 <engine> workers
      | setting        | value    |
      | drain deadline | 1 second |
    And a client is receiving a unary completions answer of 800 tokens
    When the worker serving the request is shut down mid-answer
    Then the answer completes with 800 tokens
    And within 10 seconds the worker hands the answer over and exits

    Examples:
      | engine |
      | vllm   |
      | sglang |
      | trtllm |
      | ruler  |

  # Workers with a real engine do this: they leave the list, go on for the grace period, then hand over what is left.
  @ruler
  Scenario Outline: A worker that hands over still finishes what fits into its grace period (<mode>)
    Given a Dynamo deployment with 2 ruler workers
      | setting      | value        |
      | leaves by    | handing over |
      | grace period | 6 seconds    |
    And a client is receiving a <mode> completions answer of 300 tokens
    When the worker serving the request is shut down mid-answer
    Then the answer completes with 300 tokens
    And within 15 seconds the worker finishes the answer itself and exits
    And 4 new requests succeed within 5 seconds each

    Examples:
      | mode     |
      | streamed |
      | unary    |

  @ruler
  Scenario Outline: A worker whose grace period is shorter than the answer hands it over (<mode>)
    Given a Dynamo deployment with 2 ruler workers
      | setting      | value        |
      | leaves by    | handing over |
      | grace period | 1 second     |
    And a client is receiving a <mode> completions answer of 800 tokens
    When the worker serving the request is shut down mid-answer
    Then the answer completes with 800 tokens
    And every token arrives exactly once and in order
    And within 10 seconds the worker hands the answer over and exits

    Examples:
      | mode     |
      | streamed |
      | unary    |

  @ruler
  Scenario: Two workers crash in a row within the migration limit
    Given a Dynamo deployment with 3 ruler workers
      | setting         | value |
      | migration limit | 2     |
    And a client is receiving a streamed completions answer of 300 tokens
    When after 50 tokens the worker serving the request crashes
    And after 150 tokens the worker serving the request crashes
    Then the answer completes with 300 tokens
    And every token arrives exactly once and in order
    And the frontend counts 2 migrations

  @ruler
  Scenario: The second crash exceeds the migration limit
    Given a Dynamo deployment with 3 ruler workers
      | setting         | value |
      | migration limit | 1     |
    And a client is receiving a streamed completions answer of 300 tokens
    When after 50 tokens the worker serving the request crashes
    And after 150 tokens the worker serving the request crashes
    Then within 5 seconds the answer ends in a clean error
    And a new request succeeds within 5 seconds

  @<engine>
  Scenario Outline: With migration off, a crash ends in a clean error (<engine>, <mode> <api>)
    Given a Dynamo deployment with 2 <engine> workers
      | setting         | value |
      | migration limit | 0     |
    And a client is receiving a <mode> <api> answer that takes at least 2 seconds
    When the worker serving the request crashes mid-answer
    Then within 5 seconds the answer ends in a clean error
    And the request was not moved to another worker

    Examples:
      | engine | mode     | api         |
      | vllm   | streamed | chat        |
      | ruler  | streamed | completions |
      | sglang | unary    | completions |

  @ruler
  Scenario: An answer below the sequence cap is moved
    Given a Dynamo deployment with 2 ruler workers
      | setting      | value |
      | sequence cap | 1000  |
    And a client is receiving a streamed completions answer of 200 tokens
    When after 50 tokens the worker serving the request crashes
    Then the answer completes with 200 tokens
    And every token arrives exactly once and in order

  @ruler
  Scenario: An answer above the sequence cap ends in a clean error
    Given a Dynamo deployment with 2 ruler workers
      | setting      | value |
      | sequence cap | 50    |
    And a client is receiving a streamed completions answer of 300 tokens
    When after 100 tokens the worker serving the request crashes
    Then within 5 seconds the answer ends in a clean error
    And a new request succeeds within 5 seconds

  @vllm
  Scenario Outline: A request for two choices is not moved (<mode>)
    Given a Dynamo deployment with 2 vllm workers
    And a client is receiving a <mode> chat answer that takes at least 2 seconds
      | setting | value |
      | choices | 2     |
    When the worker serving the request crashes mid-answer
    Then within 5 seconds the answer ends in a clean error
    And the request was not moved to another worker

    Examples:
      | mode     |
      | streamed |
      | unary    |

  @ruler
  Scenario: All workers are lost and a new one joins
    Given a Dynamo deployment with 2 ruler workers
    And a client is receiving a streamed completions answer of 300 tokens
    When every worker crashes
    Then within 20 seconds the answer ends in a clean error
    When a new worker joins the deployment
    Then a new request succeeds within 10 seconds

  @ruler
  Scenario: A supervised worker comes back after a crash
    Given a Dynamo deployment with 2 ruler workers
      | setting        | value     |
      | restart policy | Always    |
      | lease          | 5 seconds |
    And a client is receiving a streamed completions answer of 300 tokens
    When the worker serving the request crashes mid-answer
    Then the answer completes with 300 tokens
    And within 20 seconds the crashed worker runs again
    And within 20 seconds the frontend lists 2 workers
    And a new request succeeds within 5 seconds

  @ruler
  Scenario: New requests succeed while a dead worker is still registered
    Given a Dynamo deployment with 2 ruler workers
      | setting | value     |
      | lease   | 5 seconds |
    When an idle worker crashes
    Then the frontend still lists the dead worker
    And 6 new requests succeed within 5 seconds each
    And within 12 seconds the frontend lists 1 worker

  @ruler
  Scenario: A hung worker delays an answer no longer than the stream timeout
    Given a Dynamo deployment with 2 ruler workers
      | setting        | value     |
      | stream timeout | 2 seconds |
    And a client is receiving a streamed completions answer of 300 tokens
    When the worker serving the request hangs mid-answer
    Then the answer completes with 300 tokens
    And every token arrives exactly once and in order
    And the answer arrives with no pause longer than 4 seconds
    And another worker served the rest

  @ruler
  Scenario: A worker that hangs for a while loses nothing
    Given a Dynamo deployment with 2 ruler workers
    And a client is receiving a streamed completions answer of 300 tokens
    When the worker serving the request hangs mid-answer
    And the hung worker resumes
    Then the answer completes with 300 tokens
    And every token arrives exactly once and in order
    And the request was not moved to another worker

  @ruler
  Scenario: A worker crashes during twenty streams
    Given a Dynamo deployment with 2 ruler workers
    And 20 clients are receiving streamed completions answers of 200 tokens
    When the busiest worker crashes
    Then every answer completes with 200 tokens
    And every token arrives exactly once and in order
    And 4 new requests succeed within 5 seconds each

  @ruler
  Scenario: A worker crashes during a series of requests and the client notices nothing
    Given a Dynamo deployment with 2 ruler workers
    And a client is asking for 10 streamed chat answers of 50 tokens, one after the other
    When after 4 requests the worker serving the request crashes
    Then every answer completes with 50 tokens
    And every token arrives exactly once and in order

  @disaggregated @<engine>
  Scenario Outline: The decode worker of a disaggregated deployment crashes mid-answer (<engine>)
    Given a disaggregated Dynamo deployment with 1 prefill and 2 decode <engine> workers
    And a client is receiving a streamed completions answer that takes at least 2 seconds
    When the busiest decode worker crashes mid-answer
    Then the answer completes with all of its tokens
    And the frontend counts 1 migration
    And the answer arrives with no pause longer than 2 seconds

    Examples:
      | engine |
      | vllm   |
      | sglang |
