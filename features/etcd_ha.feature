@etcd_ha @needs.namespaces @needs.nftables
Feature: etcd fails and Dynamo serves on, or comes back by itself
  Frontends and workers find each other through etcd. Its members crash, hang, are cut off or lose their data, some or
  all at once, for less than a lease or for longer. While a majority of the members can talk, no user notices anything.
  Without a majority the deployment serves until its leases run out; then its processes exit, and it comes back by
  itself once etcd does.

  # -- some members fail, a majority remains

  @<engine>
  Scenario Outline: The etcd leader crashes during an answer (<engine>)
    Given a Dynamo deployment with 2 <engine> workers backed by a 3-member etcd cluster
      | setting | value     |
      | lease   | 5 seconds |
    And a client is receiving a streamed completions answer that takes at least 6 seconds
    When the etcd leader crashes
    Then within 5 seconds etcd has a new leader
    And the answer completes with all of its tokens
    And the frontend counts 0 migrations
    And 4 new requests succeed within 5 seconds each
    And no Dynamo process has exited

    Examples:
      | engine |
      | ruler  |
      | vllm   |
      | sglang |

  @ruler
  Scenario: Requests succeed throughout while the etcd leader crashes and returns
    Given a Dynamo deployment with 2 ruler workers backed by a 3-member etcd cluster
      | setting | value     |
      | lease   | 5 seconds |
    And a client keeps asking for streamed completions answers of 60 tokens until one fails
    When the etcd leader crashes
    Then within 5 seconds etcd has a new leader
    When etcd returns
    Then within 10 seconds the etcd members agree
    And for 6 seconds no Dynamo process exits
    And every answer completes with 60 tokens
    And no client waits longer than 2 seconds for a token

  @ruler
  Scenario: The etcd member that keeps leases alive crashes for longer than a lease
    Given a Dynamo deployment with 2 ruler workers backed by a 3-member etcd cluster
      | setting | value     |
      | lease   | 5 seconds |
    And a client keeps asking for streamed completions answers of 60 tokens until one fails
    When the busiest etcd member crashes
    Then for 10 seconds no Dynamo process exits
    And every answer completes with 60 tokens
    And no client waits longer than 2 seconds for a token
    And within 1 second the frontend lists 2 workers

  @ruler
  Scenario: The list of workers stays complete while an etcd member is down
    Given a Dynamo deployment with 2 ruler workers backed by a 3-member etcd cluster
      | setting | value     |
      | lease   | 5 seconds |
    When the busiest etcd member crashes
    Then for 8 seconds the frontend lists 2 workers

  @ruler
  Scenario: Each etcd member in turn crashes and returns
    Given a Dynamo deployment with 2 ruler workers backed by a 3-member etcd cluster
      | setting | value      |
      | lease   | 10 seconds |
    And a client keeps asking for streamed completions answers of 60 tokens until one fails
    When each etcd member crashes and returns, one after the other
    Then within 10 seconds the etcd members agree
    And for 12 seconds no Dynamo process exits
    And every answer completes with 60 tokens
    And no client waits longer than 2 seconds for a token
    And within 1 second the frontend lists 2 workers

  @ruler
  Scenario: The etcd leader hangs
    Given a Dynamo deployment with 2 ruler workers backed by a 3-member etcd cluster
      | setting | value      |
      | lease   | 15 seconds |
    And a client keeps asking for streamed completions answers of 60 tokens until one fails
    When the etcd leader hangs for 6 seconds
    Then within 5 seconds etcd has a new leader
    And within 8 seconds the etcd members agree
    And for 10 seconds no Dynamo process exits
    And every answer completes with 60 tokens
    And no client waits longer than 2 seconds for a token
    And within 1 second the frontend lists 2 workers

  @ruler
  Scenario: The etcd leader is cut off from the other members and comes back
    Given a Dynamo deployment with 2 ruler workers backed by a 3-member etcd cluster
      | setting | value      |
      | lease   | 15 seconds |
    And a client keeps asking for streamed completions answers of 60 tokens until one fails
    When packets between the etcd leader and the other members are dropped for 6 seconds
    Then within 5 seconds etcd has a new leader
    And within 7 seconds the fault has ended on its own
    And within 10 seconds the etcd members agree
    And for 10 seconds no Dynamo process exits
    And every answer completes with 60 tokens
    And no client waits longer than 2 seconds for a token

  @ruler
  Scenario: The etcd leader is cut off from everybody
    Given a Dynamo deployment with 2 ruler workers backed by a 3-member etcd cluster
      | setting | value      |
      | lease   | 15 seconds |
    And a client keeps asking for streamed completions answers of 60 tokens until one fails
    When packets between the etcd leader and everybody else are dropped for 6 seconds
    Then within 5 seconds etcd has a new leader
    And within 7 seconds the fault has ended on its own
    And within 10 seconds the etcd members agree
    And for 10 seconds no Dynamo process exits
    And every answer completes with 60 tokens
    And no client waits longer than 2 seconds for a token

  @ruler
  Scenario: A follower is cut off from the other members
    Given a Dynamo deployment with 2 ruler workers backed by a 3-member etcd cluster
      | setting | value      |
      | lease   | 15 seconds |
    And a client keeps asking for streamed completions answers of 60 tokens until one fails
    When packets between an etcd follower and the other members are dropped for 6 seconds
    Then within 7 seconds the fault has ended on its own
    And within 10 seconds the etcd members agree
    And for 10 seconds no Dynamo process exits
    And every answer completes with 60 tokens
    And no client waits longer than 2 seconds for a token

  @ruler
  Scenario: The etcd leader hears the other members but is not heard
    Given a Dynamo deployment with 2 ruler workers backed by a 3-member etcd cluster
      | setting | value      |
      | lease   | 15 seconds |
    And a client keeps asking for streamed completions answers of 60 tokens until one fails
    When packets from the etcd leader to the other members are dropped for 6 seconds
    Then within 5 seconds etcd has a new leader
    And within 7 seconds the fault has ended on its own
    And within 10 seconds the etcd members agree
    And for 10 seconds no Dynamo process exits
    And every answer completes with 60 tokens

  # The silence outlasts a lease: a process that does not switch to another member has to exit.

  @ruler
  Scenario Outline: Dynamo reaches only a minority of the etcd members (a lease of <lease> seconds)
    Given a Dynamo deployment with 4 ruler workers backed by a 3-member etcd cluster
      | setting | value           |
      | lease   | <lease> seconds |
    And a client keeps asking for streamed completions answers of 60 tokens until one fails
    When packets between a majority of etcd and Dynamo are dropped for <silence> seconds
    Then for <watch> seconds no Dynamo process exits
    And within 1 second the fault has ended on its own
    And every answer completes with 60 tokens
    And within 1 second the frontend lists 4 workers

    Examples:
      | lease | silence | watch |
      | 50    | 52      | 56    |

    # Dynamo 1.6 tries another member after 25 seconds. By chance it may pick the other silent one first, which costs it
    # 10 seconds more.
    @chance
    Examples:
      | lease | silence | watch |
      | 30    | 32      | 36    |

  @ruler
  Scenario: Dynamo reaches all etcd members except the one that keeps its leases alive
    Given a Dynamo deployment with 4 ruler workers backed by a 3-member etcd cluster
      | setting | value      |
      | lease   | 40 seconds |
    And a client keeps asking for streamed completions answers of 60 tokens until one fails
    When packets between the busiest etcd member and Dynamo are dropped for 42 seconds
    Then for 46 seconds no Dynamo process exits
    And within 1 second the fault has ended on its own
    And every answer completes with 60 tokens
    And within 1 second the frontend lists 4 workers

  @ruler @needs.tbf
  Scenario: The network of the etcd leader is slow
    Given a Dynamo deployment with 2 ruler workers backed by a 3-member etcd cluster
      | setting | value      |
      | lease   | 10 seconds |
    And a client keeps asking for streamed completions answers of 60 tokens until one fails
    When the bandwidth of the etcd leader is limited to 200 kilobits per second for 8 seconds
    Then within 9 seconds the fault has ended on its own
    And within 10 seconds the etcd members agree
    And every answer completes with 60 tokens
    And within 1 second the frontend lists 2 workers
    And no Dynamo process has exited

  @ruler
  Scenario: The etcd member that keeps leases alive falls silent for longer than a lease
    Given a Dynamo deployment with 4 ruler workers backed by a 3-member etcd cluster
      | setting | value     |
      | lease   | 5 seconds |
    When packets between the busiest etcd member and everybody else are dropped for 14 seconds
    Then within 15 seconds the fault has ended on its own
    And within 1 second the frontend lists 4 workers

  @ruler
  Scenario: Two of five etcd members crash
    Given a Dynamo deployment with 2 ruler workers backed by a 5-member etcd cluster
      | setting | value     |
      | lease   | 5 seconds |
    And a client is receiving a streamed completions answer of 1000 tokens
    When a minority of etcd crashes
    Then the answer completes with 1000 tokens
    And 4 new requests succeed within 5 seconds each
    And within 1 second the frontend lists 2 workers
    And no Dynamo process has exited

  @ruler
  Scenario: An etcd member that has lost its data is replaced
    Given a Dynamo deployment with 2 ruler workers backed by a 3-member etcd cluster
      | setting | value     |
      | lease   | 5 seconds |
    And a client keeps asking for streamed completions answers of 60 tokens until one fails
    When an etcd follower crashes
    And the lost etcd member is replaced by a new one
    Then within 10 seconds the etcd members agree
    And every answer completes with 60 tokens
    And within 1 second the frontend lists 2 workers
    And no Dynamo process has exited

  # -- no majority remains

  @ruler
  Scenario: Nobody notices an etcd outage shorter than half a lease
    Given a Dynamo deployment with 2 ruler workers
      | setting | value      |
      | lease   | 10 seconds |
    And a client keeps asking for streamed completions answers of 60 tokens until one fails
    When all of etcd hangs for 2 seconds
    Then within 4 seconds the etcd members agree
    And for 12 seconds no Dynamo process exits
    And every answer completes with 60 tokens
    And no client waits longer than 2 seconds for a token
    And within 1 second the frontend lists 2 workers

  @ruler
  Scenario: All members of etcd restart at once
    Given a Dynamo deployment with 2 ruler workers backed by a 3-member etcd cluster
      | setting | value      |
      | lease   | 10 seconds |
    And a client keeps asking for streamed completions answers of 60 tokens until one fails
    When all of etcd is restarted
    Then within 10 seconds the etcd members agree
    And for 12 seconds no Dynamo process exits
    And every answer completes with 60 tokens
    And no client waits longer than 2 seconds for a token
    And within 1 second the frontend lists 2 workers

  @ruler
  Scenario: The quorum is lost for good: answers in progress complete, then every process exits
    Given a Dynamo deployment with 2 ruler workers backed by a 3-member etcd cluster
      | setting | value     |
      | lease   | 5 seconds |
    And a client is receiving a streamed completions answer of 1000 tokens
    When a majority of etcd crashes
    Then for 2 seconds new requests succeed
    And the answer completes with 1000 tokens
    And within 60 seconds every Dynamo process has exited

  @ruler
  Scenario: The quorum is lost for longer than the lease and returns
    Given a Dynamo deployment with 2 ruler workers backed by a 3-member etcd cluster
      | setting        | value     |
      | lease          | 5 seconds |
      | restart policy | Always    |
    And a client is receiving a streamed completions answer of 600 tokens
    When a majority of etcd crashes
    Then the answer completes with 600 tokens
    And within 60 seconds every Dynamo process has exited
    When etcd returns
    Then within 60 seconds the deployment serves
    And within 10 seconds the etcd members agree
    And 4 new requests succeed within 5 seconds each

  @ruler
  Scenario: The quorum is lost during an answer that would take minutes
    Given a Dynamo deployment with 2 ruler workers backed by a 3-member etcd cluster
      | setting | value     |
      | lease   | 5 seconds |
      | speed   | 0.1       |
    And a client is receiving a streamed completions answer of 3000 tokens
    When a majority of etcd crashes
    Then within 30 seconds every Dynamo process has exited

  @ruler
  Scenario: The quorum is lost and a drain deadline ends the answers in progress
    Given a Dynamo deployment with 2 ruler workers backed by a 3-member etcd cluster
      | setting        | value     |
      | lease          | 5 seconds |
      | speed          | 0.1       |
      | drain deadline | 5 seconds |
    And a client is receiving a streamed completions answer of 3000 tokens
    When a majority of etcd crashes
    Then within 40 seconds every Dynamo process has exited
    And within 40 seconds the answer ends in a clean error

  @ruler
  Scenario: The quorum is lost while an engine hangs
    Given a Dynamo deployment with 2 ruler workers backed by a 3-member etcd cluster
      | setting             | value       |
      | lease               | 5 seconds   |
      | time to first token | 600 seconds |
    And a client is waiting for the first token of a streamed completions answer of 60 tokens
    And a worker has been processing the prompt for 1 second
    When a majority of etcd crashes
    Then within 30 seconds every Dynamo process has exited

  @ruler
  Scenario: The quorum is lost while an engine hangs and a drain deadline ends the answers in progress
    Given a Dynamo deployment with 2 ruler workers backed by a 3-member etcd cluster
      | setting             | value       |
      | lease               | 5 seconds   |
      | time to first token | 600 seconds |
      | drain deadline      | 5 seconds   |
    And a client is waiting for the first token of a streamed completions answer of 60 tokens
    And a worker has been processing the prompt for 1 second
    When a majority of etcd crashes
    Then within 40 seconds every Dynamo process has exited
    And within 40 seconds the answer ends in a clean error

  @ruler
  Scenario: Dynamo is cut off from etcd for less than half a lease
    Given a Dynamo deployment with 2 ruler workers
      | setting | value      |
      | lease   | 10 seconds |
    And a client keeps asking for streamed completions answers of 60 tokens until one fails
    When packets between all of etcd and Dynamo are dropped for 2 seconds
    Then within 4 seconds the fault has ended on its own
    And for 12 seconds no Dynamo process exits
    And every answer completes with 60 tokens
    And no client waits longer than 2 seconds for a token
    And within 1 second the frontend lists 2 workers

  @ruler
  Scenario: Dynamo is cut off from etcd for good and every process exits
    Given a Dynamo deployment with 2 ruler workers
      | setting | value     |
      | lease   | 5 seconds |
    And a client is receiving a streamed completions answer of 1000 tokens
    When packets between all of etcd and Dynamo are dropped for 120 seconds
    Then the answer completes with 1000 tokens
    And within 40 seconds every Dynamo process has exited

  @ruler
  Scenario: Dynamo is cut off from etcd for longer than a lease
    Given a Dynamo deployment with 2 ruler workers
      | setting        | value     |
      | lease          | 5 seconds |
      | restart policy | Always    |
    And a client is receiving a streamed completions answer of 600 tokens
    When packets between all of etcd and Dynamo are dropped for 14 seconds
    Then the answer completes with 600 tokens
    And within 15 seconds the fault has ended on its own
    And within 60 seconds the deployment serves
    And 4 new requests succeed within 5 seconds each

  @vllm
  Scenario: The only etcd member dies and every process exits
    Given a Dynamo deployment with 2 vllm workers
      | setting | value     |
      | lease   | 5 seconds |
    And a client is receiving a streamed completions answer that takes at least 2 seconds
    When all of etcd crashes
    Then the answer completes with all of its tokens
    And within 60 seconds every Dynamo process has exited

  @ruler
  Scenario: etcd starts after Dynamo
    Given a Dynamo deployment with 2 ruler workers whose etcd comes up 10 seconds after the rest
      | setting        | value     |
      | lease          | 5 seconds |
      | restart policy | Always    |
    Then within 60 seconds the deployment serves
    And 4 new requests succeed within 5 seconds each

  # -- workers come and go

  @ruler
  Scenario: A worker dies while etcd is down
    Given a Dynamo deployment with 2 ruler workers
      | setting | value      |
      | lease   | 15 seconds |
    When all of etcd crashes
    And a worker crashes
    Then for 2 seconds no Dynamo process exits
    When etcd returns
    Then within 20 seconds the frontend lists 1 worker
    And for 5 seconds the frontend lists 1 worker
    And 4 new requests succeed within 5 seconds each
    And the frontend counts 0 migrations

  @ruler
  Scenario: A worker starts while etcd is down
    Given a Dynamo deployment with 1 ruler worker
      | setting        | value      |
      | lease          | 30 seconds |
      | restart policy | Always     |
    When all of etcd crashes
    And a new worker starts
    And the new worker has noticed that etcd is down
    And etcd returns
    Then within 60 seconds the frontend lists 2 workers
    And within 60 seconds each new worker serves requests

  @ruler
  Scenario Outline: A killed worker stays registered for its lease and no longer (<lease>)
    Given a Dynamo deployment with 2 ruler workers backed by a 3-member etcd cluster
      | setting | value   |
      | <row>   | <value> |
    And a client keeps asking for streamed completions answers of 60 tokens until one fails
    When a worker crashes
    Then the frontend still lists the dead worker
    And the dead worker is deregistered within its lease plus 2 seconds
    And within 1 second the frontend lists 1 worker
    And every answer completes with 60 tokens

    Examples:
      | lease                                 | row    | value       |
      | a lease of 12 seconds                 | lease  | 12 seconds  |
      | the default lease of 10 or 30 seconds | router | round-robin |

  @vllm
  Scenario Outline: All workers are replaced by new ones (<router>, they <fate>)
    Given a Dynamo deployment with 2 vllm workers
      | setting | value     |
      | lease   | 5 seconds |
      | router  | <router>  |
    When every worker <breaks>
    Then within 12 seconds the frontend lists 0 workers
    And within 1 second the frontend lists no model
    When 2 new workers start
    Then within 20 seconds the deployment serves
    And 4 new requests succeed within 5 seconds each

    Examples:
      | router      | fate          | breaks       |
      | round-robin | crash         | crashes      |
      | kv          | crash         | crashes      |
      | kv          | are shut down | is shut down |

  # -- NATS and frontends

  @ruler @nats
  Scenario: The NATS server restarts while requests are in flight
    Given a Dynamo deployment with 2 ruler workers over nats
    And 8 clients are receiving streamed completions answers of 600 tokens
    When the NATS server is restarted
    Then within 15 seconds requests succeed again

  @ruler @nats
  Scenario: The NATS server restarts before the first request
    Given a Dynamo deployment with 2 ruler workers over nats
    When the NATS server is restarted
    Then within 15 seconds requests succeed again

  @ruler @nats
  Scenario: The NATS server restarts between requests
    Given a Dynamo deployment with 2 ruler workers over nats
    Then 4 new requests succeed within 5 seconds each
    When the NATS server is restarted
    Then within 15 seconds requests succeed again
    And no Dynamo process has exited

  @ruler @nats
  Scenario: The NATS server crashes while requests are in flight, and comes back
    Given a Dynamo deployment with 2 ruler workers over nats
    And 8 clients are receiving streamed completions answers of 600 tokens
    And a client keeps asking for streamed completions answers of 60 tokens until one fails
    When the NATS server crashes
    Then for 3 seconds no Dynamo process exits
    When the NATS server returns
    Then within 15 seconds requests succeed again

  @ruler @nats
  Scenario: NATS is briefly cut off before a request
    Given a Dynamo deployment with 2 ruler workers over nats
    When packets between the NATS server and Dynamo are dropped for 3 seconds
    Then within 4 seconds the fault has ended on its own
    And within 15 seconds requests succeed again

  @ruler @nats
  Scenario: NATS is briefly cut off while requests are in flight
    Given a Dynamo deployment with 2 ruler workers over nats
    And 8 clients are receiving streamed completions answers of 600 tokens
    When packets between the NATS server and Dynamo are dropped for 3 seconds
    Then within 4 seconds the fault has ended on its own
    And within 15 seconds requests succeed again

  @ruler @nats
  Scenario: NATS is briefly cut off between requests
    Given a Dynamo deployment with 2 ruler workers over nats
    Then 4 new requests succeed within 5 seconds each
    When packets between the NATS server and Dynamo are dropped for 3 seconds
    Then within 4 seconds the fault has ended on its own
    And within 15 seconds requests succeed again
    And no Dynamo process has exited

  @ruler
  Scenario: The only frontend crashes and comes back while the workers stay alive
    Given a Dynamo deployment with 2 ruler workers
      | setting | value     |
      | lease   | 5 seconds |
    When the frontend crashes
    And the frontend returns
    Then within 10 seconds the deployment serves
    And 4 new requests succeed within 5 seconds each

  @ruler
  Scenario: One of two frontends dies
    Given a Dynamo deployment with 2 ruler workers
      | setting   | value     |
      | lease     | 5 seconds |
      | frontends | 2         |
    When the frontend crashes
    Then 4 new requests succeed within 5 seconds each
    And within 1 second the frontend lists 2 workers

  @ruler
  Scenario: The idle one of two frontends dies during an answer
    Given a Dynamo deployment with 2 ruler workers
      | setting   | value     |
      | lease     | 5 seconds |
      | frontends | 2         |
    And a client is receiving a streamed completions answer of 600 tokens
    When the idle frontend crashes
    Then the answer completes with 600 tokens
    And the frontend counts 0 migrations
    And 4 new requests succeed within 5 seconds each
    And within 1 second the frontend lists 2 workers

  @ruler
  Scenario: A frontend that is shut down finishes its answers and exits
    Given a Dynamo deployment with 2 ruler workers
    And a client is receiving a streamed completions answer of 500 tokens
    When the frontend is shut down
    Then within 10 seconds the answer completes with 500 tokens
    And within 15 seconds the frontend has exited
