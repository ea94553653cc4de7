@deployment
Feature: Part of a deployment fails under load and its users hardly notice
  A load has three phases: STANDARD before the failure, OVERFLOW while it lasts, RECOVERY once it is over. Success is
  counted over all requests that were due, sent or not; latency runs from the moment a request was due.

  # With one worker fewer the others would stay slower, so the restart policy brings it back.
  @<engine> @timed
  Scenario Outline: A worker is lost under load (<engine>, <fate>)
    Given a Dynamo deployment with 2 <engine> workers
      | setting        | value  |
      | restart policy | Always |
    And 4 clients keep asking for streamed completions answers of 40 tokens
    When after 6 seconds the busiest worker <fate>
    Then every request succeeds
    And in RECOVERY the time to first token is back in the STANDARD band within 5 seconds and stays there

    Examples:
      | engine | fate         |
      | vllm   | crashes      |
      | sglang | crashes      |
      | trtllm | crashes      |
      | ruler  | crashes      |
      | vllm   | is shut down |
      | sglang | is restarted |

  @ruler
  Scenario: Requests in flight move to the other worker and complete there
    Given a Dynamo deployment with 2 ruler workers
    And 6 clients keep asking for streamed chat answers of 60 tokens
    When after 3 seconds the busiest worker crashes
    Then at least 1 request moved to another worker and completed there
    And the checks for high availability hold
      | setting                | value |
      | at least               | 99    |
      | longest outage seconds | 5     |
    And the checks for ledger against counters hold

  @vllm @timed
  Scenario: A worker hangs for a while: its users wait but lose nothing
    Given a Dynamo deployment with 2 vllm workers
    And 4 clients keep asking for streamed completions answers of 40 tokens
    When after 6 seconds the busiest worker hangs for 1.5 seconds
    Then every request succeeds
    And in RECOVERY the time to first token is back in the STANDARD band within 5 seconds and stays there

  @vllm @disaggregated
  Scenario Outline: A <role> worker of a disaggregated deployment crashes under load
    Given a disaggregated Dynamo deployment with 2 prefill and 2 decode vllm workers
    And 4 clients keep asking for streamed completions answers of 40 tokens
    When after 3 seconds the busiest <role> worker crashes
    Then at least 99 percent of the requests succeed in RECOVERY

    Examples:
      | role    |
      | decode  |
      | prefill |

  # Answers in flight end with the frontend that carries them. What counts here is how fast service returns.
  @ruler @timed @not_judged.one-outcome.the_connections_end_with_the_frontend
  Scenario: The frontend is restarted under load
    Given a Dynamo deployment with 2 ruler workers
    And 4 clients keep asking for streamed completions answers of 20 tokens
    When after 6 seconds the frontend is restarted
    Then in RECOVERY the time to first token is back in the STANDARD band within 4 seconds and stays there

  @vllm @timed @not_judged.one-outcome.the_connections_end_with_the_frontend
  Scenario: The frontend crashes under load and comes back
    Given a Dynamo deployment with 2 vllm workers
    And 4 clients keep asking for streamed completions answers of 20 tokens
    When after 6 seconds the frontend crashes for 2 seconds
    Then in RECOVERY the time to first token is back in the STANDARD band within 5 seconds and stays there

  # Eight seconds outlast a lease: with a single etcd member every worker would drop off the list.
  @vllm @timed
  Scenario: One of three etcd members crashes under load and comes back
    Given a Dynamo deployment with 2 vllm workers backed by a 3-member etcd cluster
      | setting | value     |
      | lease   | 4 seconds |
    And 4 clients keep asking for streamed completions answers of 40 tokens
    When after 6 seconds an etcd member crashes for 8 seconds
    Then every request succeeds
    And in RECOVERY the time to first token is back in the STANDARD band within 4 seconds and stays there

  @vllm @needs.kmsg
  Scenario: A GPU fails under load and is repaired
    Given a Dynamo deployment with 2 vllm workers
    And 4 clients keep asking for streamed completions answers of 40 tokens
    When after 3 seconds the GPU of the busiest worker reports XID 79 for 3 seconds
    Then every request succeeds
    And at least 1 request moved to another worker and completed there
    And the checks for high availability hold
      | setting                | value |
      | at least               | 99    |
      | longest outage seconds | 5     |

  @vllm @timed @needs.nftables
  Scenario: The network fails under load and heals
    Given a Dynamo deployment with 2 vllm workers
    And 4 clients keep asking for streamed completions answers of 40 tokens
    When after 6 seconds packets between the busiest worker and the frontend are reset for 2 seconds
    Then every request succeeds
    And in RECOVERY the time to first token is back in the STANDARD band within 4 seconds and stays there

  @vllm
  Scenario: Two of three workers hang at once, then one is shut down, and no request is lost
    Given a Dynamo deployment with 3 vllm workers
    And 4 clients keep asking for streamed completions answers of 40 tokens
    When these failures strike
      | failure      | target             | when                 | for       |
      | hangs        | the busiest worker | after 500 tokens     | 2 seconds |
      | hangs        | the busiest worker | after 500 tokens     | 2 seconds |
      | is shut down | the busiest worker | once RECOVERY begins |           |
    Then every request succeeds

  @vllm @timed @needs.nftables
  Scenario: A lossy network costs no request
    When the scenario "a network that loses packets" of docs/scenarios.yaml is played
    Then all of its checks hold

  @ruler @timed
  Scenario: etcd hangs for a while and requests go on
    Given a Dynamo deployment with 2 ruler workers
      | setting   | value |
      | discovery | etcd  |
    And 4 clients keep asking for streamed completions answers of 40 tokens
    When after 6 seconds all of etcd hangs for 2 seconds
    Then every request succeeds
    And in RECOVERY the time to first token is in the STANDARD band
    And in RECOVERY the time to first token is back in the STANDARD band within 4 seconds and stays there

  @vllm
  Scenario: Nothing breaks and every answer is whole
    Given a Dynamo deployment with 2 vllm workers
    And 6 clients keep asking for unary chat answers of 40 tokens for 5 seconds
    When nothing breaks
    Then every request succeeds
    And the checks for ledger against counters hold
