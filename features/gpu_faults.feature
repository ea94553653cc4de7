@hardware @gpu_faults
Feature: A GPU fails and users get an answer or a clear error
  The driver reports a GPU error in the kernel log, or the GPU gets slow, hot or full. The worker on it suffers what
  such an error does. Clients get their answers from another worker, or a clean error, and service is back after the
  repair. GPUs are simulated here; each fault says which part of it is reported, emulated or real.

  @ruler @needs.kmsg
  Scenario Outline: An error that kills the worker costs no answer (XID <xid>, <meaning>)
    Given a Dynamo deployment with 2 ruler workers
      | setting | value     |
      | lease   | 5 seconds |
    And a client is receiving a streamed completions answer of 1000 tokens
    When the GPU of the worker serving the request reports XID <xid>
    Then the answer completes with 1000 tokens
    And every token arrives exactly once and in order
    And another worker served the rest
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
  Scenario: An error is logged with its usual follow-up errors
    Given a Dynamo deployment with 2 vllm workers
    And a client is receiving a streamed chat answer that takes at least 6 seconds
    When the GPU of the worker serving the request reports XID 48 with its usual follow-up errors
    Then the answer completes with all of its tokens
    And another worker served the rest

  @ruler @needs.kmsg
  Scenario: An error of the only GPU ends the answer in a clean error, and service returns after the repair
    Given a Dynamo deployment with 1 ruler worker
      | setting | value     |
      | lease   | 5 seconds |
    And a client is receiving a streamed completions answer of 1000 tokens
    When the GPU of the worker serving the request reports XID 95
    Then within 10 seconds the answer ends in a clean error
    And within 12 seconds the frontend lists 0 workers
    When the GPU is repaired
    Then within 20 seconds the deployment serves
    And 4 new requests succeed within 5 seconds each

  @<engine> @needs.kmsg
  Scenario Outline: A worker whose GPU has fallen off the bus stays down until the GPU is repaired (<engine>)
    Given a Dynamo deployment with 2 <engine> workers
      | setting        | value     |
      | restart policy | Always    |
      | lease          | 5 seconds |
    And a client is receiving a streamed completions answer that takes at least 6 seconds
    When the GPU of the worker serving the request reports XID 79
    Then the answer completes with all of its tokens
    And within 12 seconds the frontend lists 1 worker
    And the worker stays down
    And 2 new requests succeed within 5 seconds each
    When the GPU is repaired
    Then within 20 seconds the frontend lists 2 workers

    Examples:
      | engine |
      | ruler  |
      | vllm   |

  @ruler @needs.kmsg
  Scenario Outline: The stream timeout detects an error that hangs the worker (XID <xid>)
    Given a Dynamo deployment with 2 ruler workers
      | setting        | value     |
      | stream timeout | 2 seconds |
    And a client is receiving a streamed completions answer of 600 tokens
    When the GPU of the worker serving the request reports XID <xid>
    Then the answer completes with 600 tokens
    And every token arrives exactly once and in order
    And another worker served the rest
    When the GPU is repaired
    Then 4 new requests succeed within 5 seconds each

    Examples:
      | xid |
      | 119 |
      | 120 |

  @ruler @needs.kmsg
  Scenario: A GPU hang ends at its deadline
    Given a Dynamo deployment with 2 ruler workers
    And a client is receiving a streamed completions answer of 600 tokens
    When the GPU of the worker serving the request reports XID 120 for 2 seconds
    Then within 4 seconds the fault has ended on its own
    And the answer completes with 600 tokens
    And every token arrives exactly once and in order
    And the request was not moved to another worker

  @ruler @needs.kmsg
  Scenario: The watchdog ends a GPU hang while the node agent is frozen
    Given a Dynamo deployment with 2 ruler workers
    And a client is receiving a streamed completions answer of 600 tokens
    When the GPU of the worker serving the request reports XID 119 for 2 seconds
    And the node agent freezes
    Then within 10 seconds the fault has ended on its own
    And the answer completes with 600 tokens
    And every token arrives exactly once and in order

  @ruler @needs.kmsg @needs.namespaces @needs.nftables
  Scenario: An NVLink error does not affect an answer that needs only one worker
    Given a Dynamo deployment with 2 ruler workers
    And a client is receiving a streamed completions answer of 600 tokens
    When the GPU of the worker serving the request reports XID 74
    Then the answer completes with 600 tokens
    And every token arrives exactly once and in order
    And the request was not moved to another worker

  @vllm @disaggregated @needs.kmsg @needs.namespaces @needs.nftables
  Scenario: An NVLink error loses nothing that the prefill worker hands over
    Given a disaggregated Dynamo deployment with 1 prefill and 2 decode vllm workers
    And a client is receiving a streamed completions answer that takes at least 4 seconds
    When the GPU of the worker serving the request reports XID 74
    Then the answer completes with all of its tokens
    And 4 new requests succeed within 20 seconds each
    When the GPU is repaired
    Then 4 new requests succeed within 5 seconds each

  @ruler @needs.kmsg
  Scenario Outline: A non-fatal error moves no request (XID <xid>)
    Given a Dynamo deployment with 2 ruler workers
    And a client is receiving a streamed completions answer of 400 tokens
    When the GPU of the worker serving the request reports XID <xid>
    Then the answer completes with 400 tokens
    And the answer arrives with no pause longer than 1 second
    And the request was not moved to another worker

    Examples:
      | xid |
      | 13  |
      | 31  |
      | 63  |
      | 92  |

  @<engine> @needs.strain
  Scenario Outline: A slower GPU slows answers down and does nothing else (<engine>, <strain>)
    Given a Dynamo deployment with 1 <engine> worker
    And a client is receiving a streamed completions answer that takes at least 9 seconds
    When the GPU of the worker serving the request <strain> by <share> percent
    And the GPU is repaired
    Then the answer completes with all of its tokens
    And the answer arrives with no pause longer than 1 second

    Examples:
      | engine | strain                      | share |
      | ruler  | is throttled                | 50    |
      | vllm   | overheats                   | 50    |
      | ruler  | is shared with another load | 25    |

  @ruler @needs.strain
  Scenario: A worker whose GPU memory is taken while it is down stays down until the memory is returned
    Given a Dynamo deployment with 2 ruler workers
      | setting        | value  |
      | restart policy | Always |
    And a client is receiving a streamed completions answer of 800 tokens
    When the GPU of the worker serving the request loses memory by 75 percent
    And the worker serving the request crashes mid-answer
    Then the answer completes with 800 tokens
    And every token arrives exactly once and in order
    And the worker stays down
    When the GPU is repaired
    Then within 20 seconds the frontend lists 2 workers
