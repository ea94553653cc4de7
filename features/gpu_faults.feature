@hardware @gpu_faults
Feature: A GPU fails
  The driver reports an error of a GPU in the kernel log, or the GPU gets slow, hot or full. The worker on it suffers
  what such an error brings; clients get their answers from another worker or in a clean error, and service is back
  after the repair. GPUs are simulated here; what is reported, emulated or real stands in each fault.

  @ruler @needs.kmsg
  Scenario Outline: An error that ends the worker does not cost an answer (XID <xid>, <meaning>)
    Given a Dynamo deployment with 2 ruler workers
      | setting | value     |
      | lease   | 5 seconds |
    And a client is receiving a streamed completions answer of 1000 tokens
    When the GPU of the worker serving the request reports XID <xid>
    Then the answer completes with 1000 tokens
    And every position comes once and in order
    And another worker has served the rest
    And within 12 seconds the frontend lists 1 worker
    When the GPU is repaired
    Then within 20 seconds the frontend lists 2 workers
    And 4 new requests succeed within 5 seconds each

    Examples:
      | xid | meaning                  |
      | 43  | GPU stopped processing   |
      | 48  | double bit ECC error     |
      | 94  | contained memory error   |
      | 95  | uncontained memory error |

  @vllm @needs.kmsg
  Scenario: An error comes with all that follows it in real logs
    Given a Dynamo deployment with 2 vllm workers
    And a client is receiving a streamed chat answer that takes at least 6 seconds
    When the GPU of the worker serving the request reports XID 48 with all that follows it
    Then the answer completes with all of its tokens
    And another worker has served the rest

  @ruler @needs.kmsg
  Scenario: An error of the only GPU ends the answer in so many words, and service is back after the repair
    Given a Dynamo deployment with 1 ruler worker
      | setting | value     |
      | lease   | 5 seconds |
    And a client is receiving a streamed completions answer of 1000 tokens
    When the GPU of the worker serving the request reports XID 95
    Then within 10 seconds the answer ends in a clean error
    And within 12 seconds the frontend lists 0 workers
    When the GPU is repaired
    Then within 20 seconds the deployment serves again
    And 4 new requests succeed within 5 seconds each

  @<engine> @needs.kmsg
  Scenario Outline: A GPU that has fallen off the bus keeps its worker out until it is repaired (<engine>)
    Given a Dynamo deployment with 2 <engine> workers
      | setting        | value     |
      | restart policy | Always    |
      | lease          | 5 seconds |
    And a client is receiving a streamed completions answer that takes at least 6 seconds
    When the GPU of the worker serving the request reports XID 79
    Then the answer completes with all of its tokens
    And within 12 seconds the frontend lists 1 worker
    And the worker stays out
    And 2 new requests succeed within 5 seconds each
    When the GPU is repaired
    Then within 20 seconds the frontend lists 2 workers

    Examples:
      | engine |
      | ruler  |
      | vllm   |

  @ruler @needs.kmsg
  Scenario Outline: An error that hangs the worker is noticed by the stream timeout (XID <xid>)
    Given a Dynamo deployment with 2 ruler workers
      | setting        | value     |
      | stream timeout | 2 seconds |
    And a client is receiving a streamed completions answer of 600 tokens
    When the GPU of the worker serving the request reports XID <xid>
    Then the answer completes with 600 tokens
    And every position comes once and in order
    And another worker has served the rest
    When the GPU is repaired
    Then 4 new requests succeed within 5 seconds each

    Examples:
      | xid |
      | 119 |
      | 120 |

  @ruler @needs.kmsg
  Scenario: A hang of the GPU ends at its deadline
    Given a Dynamo deployment with 2 ruler workers
    And a client is receiving a streamed completions answer of 600 tokens
    When the GPU of the worker serving the request reports XID 120 for 2 seconds
    Then within 4 seconds the fault has ended by itself
    And the answer completes with 600 tokens
    And every position comes once and in order
    And the request was not moved to another worker

  @ruler @needs.kmsg
  Scenario: A hang of the GPU is ended by the watchdog when the node agent is frozen
    Given a Dynamo deployment with 2 ruler workers
    And a client is receiving a streamed completions answer of 600 tokens
    When the GPU of the worker serving the request reports XID 119 for 2 seconds
    And the node agent freezes
    Then within 10 seconds the fault has ended by itself
    And the answer completes with 600 tokens
    And every position comes once and in order

  @ruler @needs.kmsg @needs.namespaces @needs.nftables
  Scenario: An NVLink error between workers does not touch an answer that needs no other worker
    Given a Dynamo deployment with 2 ruler workers
    And a client is receiving a streamed completions answer of 600 tokens
    When the GPU of the worker serving the request reports XID 74
    Then the answer completes with 600 tokens
    And every position comes once and in order
    And the request was not moved to another worker

  @vllm @disaggregated @needs.kmsg @needs.namespaces @needs.nftables
  Scenario: An NVLink error loses nothing of what the prefill worker hands over
    Given a disaggregated Dynamo deployment with 1 prefill and 2 decode vllm workers
    And a client is receiving a streamed completions answer that takes at least 4 seconds
    When the GPU of the worker serving the request reports XID 74
    Then the answer completes with all of its tokens
    And 4 new requests succeed within 20 seconds each
    When the GPU is repaired
    Then 4 new requests succeed within 5 seconds each

  @ruler @needs.kmsg
  Scenario Outline: An error that is not fatal moves nothing (XID <xid>)
    Given a Dynamo deployment with 2 ruler workers
    And a client is receiving a streamed completions answer of 400 tokens
    When the GPU of the worker serving the request reports XID <xid>
    Then the answer completes with 400 tokens
    And the answer comes without a pause of more than 1 second
    And the request was not moved to another worker

    Examples:
      | xid |
      | 13  |
      | 31  |
      | 63  |
      | 92  |

  @<engine> @needs.strain
  Scenario Outline: A GPU that gets slower makes its answers slower, and nothing else (<engine>, <strain>)
    Given a Dynamo deployment with 1 <engine> worker
    And a client is receiving a streamed completions answer that takes at least 9 seconds
    When the GPU of the worker serving the request <strain> by <share> percent
    And the GPU is repaired
    Then the answer completes with all of its tokens
    And the answer comes without a pause of more than 1 second

    Examples:
      | engine | strain                      | share |
      | ruler  | is throttled                | 50    |
      | vllm   | overheats                   | 50    |
      | ruler  | is shared with another load | 25    |

  @ruler @needs.strain
  Scenario: A worker whose GPU memory is taken while it is down stays out until it is given back
    Given a Dynamo deployment with 2 ruler workers
      | setting        | value  |
      | restart policy | Always |
    And a client is receiving a streamed completions answer of 800 tokens
    When the GPU of the worker serving the request loses memory by 75 percent
    And the worker serving the request crashes in mid-answer
    Then the answer completes with 800 tokens
    And every position comes once and in order
    And the worker stays out
    When the GPU is repaired
    Then within 20 seconds the frontend lists 2 workers
