@hardware @network @needs.namespaces @needs.nftables
Feature: The network between nodes fails
  Packets are dropped, refused or reset between two nodes of a deployment, in both directions or in one, on open
  connections and on new ones. Clients get their answers whole, late or in a clean error, and the deployment serves
  again once the cut has healed: by a call, at its deadline, or with every injector dead.

  @ruler
  Scenario: A short silence between frontend and worker only delays an answer
    Given a Dynamo deployment with 2 ruler workers
    And a client is receiving a streamed completions answer of 400 tokens
    When packets between the worker serving the request and the frontend are dropped for 2 seconds
    Then within 4 seconds the cut has healed by itself
    And the answer completes with 400 tokens
    And every position comes once and in order
    And the request was not moved to another worker

  @ruler
  Scenario: A stream that falls silent is moved when the frontend gives the worker up
    Given a Dynamo deployment with 2 ruler workers
      | setting        | value     |
      | stream timeout | 2 seconds |
    And a client is receiving a streamed completions answer of 300 tokens
    When packets between the worker serving the request and the frontend are dropped
    Then the answer completes with 300 tokens
    And every position comes once and in order
    And another worker has served the rest

  @<engine>
  Scenario Outline: A connection that is reset makes the answer move (<engine>)
    Given a Dynamo deployment with 2 <engine> workers
    And a client is receiving a streamed completions answer of 300 tokens
    When packets between the worker serving the request and the frontend are reset
    Then within 10 seconds the answer completes with 300 tokens
    And another worker has served the rest

    Examples:
      | engine |
      | ruler  |
      | vllm   |

  @ruler
  Scenario: A refused connection is no worse than a silent one
    Given a Dynamo deployment with 2 ruler workers
    And a client is receiving a streamed completions answer of 400 tokens
    When packets between the worker serving the request and the frontend are rejected for 2 seconds
    Then within 4 seconds the cut has healed by itself
    And the answer completes with 400 tokens
    And every position comes once and in order

  @ruler
  Scenario Outline: Packets are lost in one direction only (<flow> the worker)
    Given a Dynamo deployment with 2 ruler workers
    And a client is receiving a streamed completions answer of 400 tokens
    When packets <flow> the worker serving the request are lost for 2 seconds
    Then within 4 seconds the cut has healed by itself
    And the answer completes with 400 tokens
    And every position comes once and in order

    Examples:
      | flow |
      | to   |
      | from |

  @ruler @nats
  Scenario: A worker that cannot reach NATS for a moment finishes its answer
    Given a Dynamo deployment with 2 ruler workers over nats
    And a client is receiving a streamed completions answer of 400 tokens
    When packets between the worker serving the request and NATS are dropped for 2 seconds
    Then within 4 seconds the cut has healed by itself
    And the answer completes with 400 tokens
    And every position comes once and in order
    And a new request succeeds within 10 seconds

  @vllm @disaggregated
  Scenario: The decode worker is cut off from the prefill worker while it writes
    Given a disaggregated Dynamo deployment with 1 prefill and 2 decode vllm workers
    And a client is receiving a streamed completions answer of 300 tokens
    When packets between the worker serving the request and its peers are dropped for 2 seconds
    Then within 4 seconds the cut has healed by itself
    And the answer completes with 300 tokens

  @ruler
  Scenario: A cut from etcd that is shorter than the lease is not noticed
    Given a Dynamo deployment with 2 ruler workers
      | setting | value     |
      | lease   | 5 seconds |
    And a client is receiving a streamed completions answer of 400 tokens
    When packets between the worker serving the request and etcd are dropped for 2 seconds
    Then within 4 seconds the cut has healed by itself
    And the answer completes with 400 tokens
    And every position comes once and in order
    And within 1 second the frontend lists 2 workers

  @ruler
  Scenario: A cut from etcd that is longer than the lease takes the worker out, and it comes back
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
  Scenario: A call heals a cut
    Given a Dynamo deployment with 2 ruler workers
    And a client is receiving a streamed completions answer of 300 tokens
    When packets between the worker serving the request and the frontend are dropped
    And the cut is healed
    Then the answer completes with 300 tokens
    And every position comes once and in order
    And 4 new requests succeed within 5 seconds each

  @ruler
  Scenario: A cut ends at its deadline although its injectors are killed
    Given a Dynamo deployment with 2 ruler workers
    And a client is receiving a streamed completions answer of 400 tokens
    When packets between the worker serving the request and the frontend are dropped for 3 seconds
    And the fault service and the node agent are killed
    Then within 4 seconds the cut has healed by itself
    And the answer completes with 400 tokens
    And every position comes once and in order
