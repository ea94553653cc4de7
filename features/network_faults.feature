@hardware @network @needs.namespaces @needs.nftables
Feature: The network between nodes fails and users get an answer or a clear error
  Packets between two nodes are dropped, rejected or reset, in one direction or both, on open connections and new
  ones. Clients get whole answers, perhaps late, or a clean error. The deployment serves again once the cut is over: an
  API call ends it, or its deadline does, even if the injectors are killed meanwhile.

  @ruler
  Scenario: A short silence between frontend and worker only delays an answer
    Given a Dynamo deployment with 2 ruler workers
    And a client is receiving a streamed completions answer of 400 tokens
    When packets between the worker serving the request and the frontend are dropped for 2 seconds
    Then within 4 seconds the fault has ended on its own
    And the answer completes with 400 tokens
    And every token arrives exactly once and in order
    And the request was not moved to another worker

  @ruler
  Scenario: A silent stream is moved once the frontend gives up on the worker
    Given a Dynamo deployment with 2 ruler workers
      | setting        | value     |
      | stream timeout | 2 seconds |
    And a client is receiving a streamed completions answer of 300 tokens
    When packets between the worker serving the request and the frontend are dropped
    Then the answer completes with 300 tokens
    And every token arrives exactly once and in order
    And another worker served the rest

  @<engine>
  Scenario Outline: A reset connection moves the answer to another worker (<engine>)
    Given a Dynamo deployment with 2 <engine> workers
    And a client is receiving a streamed completions answer that takes at least 3 seconds
    When packets between the worker serving the request and the frontend are reset
    Then the answer completes with all of its tokens, no more than 10 seconds late
    And another worker served the rest

    Examples:
      | engine |
      | ruler  |
      | vllm   |

  @ruler
  Scenario: A refused connection is no worse than a silent one
    Given a Dynamo deployment with 2 ruler workers
    And a client is receiving a streamed completions answer of 400 tokens
    When packets between the worker serving the request and the frontend are rejected for 2 seconds
    Then within 4 seconds the fault has ended on its own
    And the answer completes with 400 tokens
    And every token arrives exactly once and in order

  @ruler
  Scenario Outline: Packets are lost in one direction only (<flow> the worker)
    Given a Dynamo deployment with 2 ruler workers
    And a client is receiving a streamed completions answer of 400 tokens
    When packets <flow> the worker serving the request <back> the frontend are dropped for 2 seconds
    Then within 4 seconds the fault has ended on its own
    And the answer completes with 400 tokens
    And every token arrives exactly once and in order

    Examples:
      | flow | back |
      | to   | from |
      | from | to   |

  @ruler
  Scenario: A request goes to another worker when its own is refused as it starts to answer
    Given a Dynamo deployment with 2 ruler workers
    And 2 clients are receiving streamed completions answers of 400 tokens
    When packets from the worker serving the request to the frontend are rejected for 2 seconds
    Then 4 new requests succeed within 10 seconds each

  @ruler
  Scenario: A lossy network may delay an answer but damages none
    Given a Dynamo deployment with 2 ruler workers
    And a client is receiving a streamed completions answer that takes at least 6 seconds
    When 40 % of the packets between the worker serving the request and the frontend are lost for 3 seconds
    Then the answer completes with all of its tokens
    And every token arrives exactly once and in order
    And the request was not moved to another worker
    And within 4 seconds the fault has ended on its own

  @ruler @needs.tbf
  Scenario: Low bandwidth slows an answer down and loses none of it
    Given a Dynamo deployment with 2 ruler workers
    And a client is receiving a streamed completions answer that takes at least 6 seconds
    When the bandwidth of the worker serving the request is limited to 100 kilobits per second for 5 seconds
    Then the answer completes with all of its tokens
    And every token arrives exactly once and in order
    And the request was not moved to another worker
    And within 6 seconds the fault has ended on its own

  @ruler @nats
  Scenario Outline: Over NATS a short <fault> between frontend and worker only delays an answer
    Given a Dynamo deployment with 2 ruler workers over nats
    And a client is receiving a streamed completions answer of 400 tokens
    When packets between the worker serving the request and the frontend are <manner> for 2 seconds
    Then within 4 seconds the fault has ended on its own
    And the answer completes with 400 tokens
    And every token arrives exactly once and in order
    And the request was not moved to another worker

    Examples:
      | fault   | manner   |
      | silence | dropped  |
      | refusal | rejected |

  @ruler @nats
  Scenario: Over NATS, a reset connection also moves the answer to another worker
    Given a Dynamo deployment with 2 ruler workers over nats
    And a client is receiving a streamed completions answer of 400 tokens
    When packets between the worker serving the request and the frontend are reset for 2 seconds
    Then within 10 seconds the answer completes with 400 tokens
    And every token arrives exactly once and in order
    And another worker served the rest
    And 4 new requests succeed within 10 seconds each

  @ruler @nats
  Scenario Outline: A worker that briefly cannot reach NATS finishes its answer (<manner>)
    Given a Dynamo deployment with 2 ruler workers over nats
    And a client is receiving a streamed completions answer of 400 tokens
    When packets between the worker serving the request and NATS are <manner> for 2 seconds
    Then within 4 seconds the fault has ended on its own
    And the answer completes with 400 tokens
    And every token arrives exactly once and in order
    And 4 new requests succeed within 10 seconds each

    Examples:
      | manner  |
      | dropped |
      | reset   |

  @ruler
  Scenario: Nobody notices a cut that no request crosses
    Given a Dynamo deployment with 2 ruler workers
    And a client is receiving a streamed completions answer of 600 tokens
    When packets between the worker serving the request and its peers are dropped for 2 seconds
    Then the answer completes with 600 tokens
    And the answer arrives with no pause longer than 1 second
    And the request was not moved to another worker

  # The cut lasts while the prefill worker reads new prompts and hands them over.
  @vllm @disaggregated
  Scenario Outline: A decode worker is cut off from the prefill worker while requests are handed over (<manner>)
    Given a disaggregated Dynamo deployment with 1 prefill and 2 decode vllm workers
    And a client is receiving a streamed completions answer that takes at least 6 seconds
    When packets between the worker serving the request and its peers are <manner> for 3 seconds
    Then 4 new requests succeed within 20 seconds each
    And the answer completes with all of its tokens
    And within 5 seconds the fault has ended on its own

    Examples:
      | manner   |
      | dropped  |
      | rejected |
      | reset    |

  @ruler
  Scenario: Nobody notices a worker cut off from etcd for less than its lease
    Given a Dynamo deployment with 2 ruler workers
      | setting | value     |
      | lease   | 5 seconds |
    And a client is receiving a streamed completions answer of 400 tokens
    When packets between the worker serving the request and etcd are dropped for 2 seconds
    Then within 4 seconds the fault has ended on its own
    And the answer completes with 400 tokens
    And every token arrives exactly once and in order
    And within 1 second the frontend lists 2 workers

  @ruler
  Scenario: A worker cut off from etcd for longer than its lease leaves and comes back
    Given a Dynamo deployment with 2 ruler workers
      | setting        | value     |
      | lease          | 5 seconds |
      | restart policy | Always    |
    And a client is receiving a streamed completions answer of 200 tokens
    When packets between the worker serving the request and etcd are dropped for 14 seconds
    Then the answer completes with 200 tokens
    And within 13 seconds the frontend lists 1 worker
    And 4 new requests succeed within 5 seconds each
    And within 60 seconds the frontend lists 2 workers

  @ruler
  Scenario: An API call ends a cut
    Given a Dynamo deployment with 2 ruler workers
    And a client is receiving a streamed completions answer of 300 tokens
    When packets between the worker serving the request and the frontend are dropped
    And the network is healed
    Then the answer completes with 300 tokens
    And every token arrives exactly once and in order
    And 4 new requests succeed within 5 seconds each

  @ruler
  Scenario: A cut ends at its deadline although its injectors are killed
    Given a Dynamo deployment with 2 ruler workers
    And a client is receiving a streamed completions answer of 400 tokens
    When packets between the worker serving the request and the frontend are dropped for 3 seconds
    And the fault service and the node agent are killed
    Then within 4 seconds the fault has ended on its own
    And the answer completes with 400 tokens
    And every token arrives exactly once and in order
