@cancellation
Feature: A client gives up and its request is cancelled
  When a client closes its connection, its worker stops at once and nothing is left behind. Other clients notice
  nothing, and the frontend counts the cancellation.

  # The rows cover every pair of engine, API and mode.
  @<engine> @release.counts_cancellations
  Scenario Outline: The client closes the connection mid-answer (<engine>, <mode> <api>)
    Given a Dynamo deployment with 2 <engine> workers
    And a client is receiving a <mode> <api> answer of 2000 tokens
    When the client closes the connection
    Then within 2 seconds no worker has a request in flight
    And the frontend counts 1 cancelled <mode> <api> request
    And the request was not moved to another worker
    And a new request succeeds within 5 seconds

    Examples:
      | engine | mode     | api         |
      | vllm   | streamed | completions |
      | vllm   | unary    | chat        |
      | sglang | streamed | chat        |
      | sglang | unary    | completions |
      | trtllm | streamed | chat        |
      | trtllm | unary    | completions |

  @ruler @smoke
  Scenario: The engine itself is told to stop
    Given a Dynamo deployment with 2 ruler workers
    And a client is receiving a streamed completions answer of 2000 tokens
    When the client closes the connection
    Then within 2 seconds no worker has a request in flight
    And the engine was told to stop before the answer ended

  @<engine>
  Scenario Outline: The client resets the connection mid-answer (<engine>, <mode> <api>)
    Given a Dynamo deployment with 2 <engine> workers
    And a client is receiving a <mode> <api> answer of 2000 tokens
    When the client resets the connection
    Then within 2 seconds no worker has a request in flight
    And a new request succeeds within 5 seconds

    Examples:
      | engine | mode     | api         |
      | vllm   | streamed | chat        |
      | sglang | unary    | chat        |
      | trtllm | streamed | completions |

  @<engine>
  Scenario Outline: The client gives up while its long prompt is in prefill (<engine>, <mode> <api>)
    Given a Dynamo deployment with 1 <engine> worker
      | setting | value |
      | speed   | 0.02  |
    And a client is waiting for the first token of a <mode> <api> answer of 500 tokens
      | setting      | value |
      | prompt words | 6000  |
    And a worker has been processing the prompt for 1 second
    When the client closes the connection
    Then within 2 seconds no worker has a request in flight

    Examples:
      | engine | mode     | api         |
      | vllm   | streamed | completions |
      | sglang | streamed | chat        |
      | trtllm | unary    | completions |

  @ruler
  Scenario: One of several clients gives up and the others get every token
    Given a Dynamo deployment with 2 ruler workers
    And 6 clients are receiving streamed completions answers of 300 tokens
    When one of the clients closes its connection
    Then every answer completes with 300 tokens
    And every token arrives exactly once and in order
    And within 2 seconds no worker has a request in flight

  @vllm
  Scenario: 32 clients give up at once
    Given a Dynamo deployment with 2 vllm workers
    And 32 clients are receiving streamed chat answers of 2000 tokens
    When every client closes its connection at once
    Then within 2 seconds no worker has a request in flight
    And 8 new requests succeed within 5 seconds each

  @ruler
  Scenario: The client gives up during a migration and the request is not resurrected
    Given a Dynamo deployment with 2 ruler workers
      | setting             | value     |
      | time to first token | 2 seconds |
    And a client is receiving a streamed completions answer of 500 tokens
    When the worker serving the request crashes mid-answer
    And the client closes the connection while the request is being moved
    Then within 4 seconds no worker has a request in flight
    And the engine was told to stop before the answer ended

  @disaggregated @<engine>
  Scenario Outline: The client gives up while the decode worker is generating (<engine>)
    Given a disaggregated Dynamo deployment with 1 prefill and 1 decode <engine> workers
    And a client is receiving a streamed completions answer of 2000 tokens
    When the client closes the connection
    Then within 2 seconds no worker has a request in flight
    And a new request succeeds within 5 seconds

    Examples:
      | engine |
      | vllm   |
      | sglang |

  @disaggregated @<engine>
  Scenario Outline: The client gives up while the prefill worker is processing the prompt (<engine>)
    Given a disaggregated Dynamo deployment with 1 prefill and 1 decode <engine> workers
      | setting | value |
      | speed   | 0.02  |
    And a client is waiting for the first token of a streamed completions answer of 500 tokens
      | setting      | value |
      | prompt words | 6000  |
    And the prefill worker has been processing the prompt for 1 second
    When the client closes the connection
    Then within 2 seconds no worker has a request in flight

    Examples:
      | engine |
      | vllm   |
      | sglang |

  @vllm @release.counts_cancellations
  Scenario Outline: A complete answer is not cancelled (<mode> <api>)
    Given a Dynamo deployment with 2 vllm workers
    And a client has received a <mode> <api> answer of 20 tokens
    When the client closes the connection after the answer
    Then the frontend counts no cancelled requests
    And the answer completes with 20 tokens

    Examples:
      | mode     | api         |
      | streamed | chat        |
      | unary    | completions |

  @nats @<engine> @release.counts_cancellations
  Scenario Outline: The client closes the connection mid-answer over NATS (<engine>, <mode> <api>)
    Given a Dynamo deployment with 2 <engine> workers over nats
    And a client is receiving a <mode> <api> answer of 2000 tokens
    When the client closes the connection
    Then within 2 seconds no worker has a request in flight
    And the frontend counts 1 cancelled <mode> <api> request
    And the request was not moved to another worker

    Examples:
      | engine | mode     | api         |
      | vllm   | streamed | chat        |
      | ruler  | unary    | completions |
