@examples
Feature: Examples of faults: any victim, at any moment, for any time
  Each scenario shows sentences to copy. A fault sentence has up to four parts: when it happens, who is hit, what
  happens, and for how long. Any of them goes with any other.

  @ruler
  Scenario: A worker crashes and no other worker is touched
    Given a Dynamo deployment with 3 ruler workers
    And 3 clients are receiving streamed completions answers of 300 tokens
    When the worker serving the request crashes mid-answer
    Then every answer completes with 300 tokens
    And no other worker is touched

  @ruler
  Scenario: A worker hangs mid-answer for a moment
    Given a Dynamo deployment with 2 ruler workers
    And a client is receiving a streamed completions answer of 300 tokens
    When the worker serving the request hangs mid-answer for 2 seconds
    Then the answer completes with 300 tokens
    And every token arrives exactly once and in order
    And within 4 seconds the fault has ended on its own

  @ruler
  Scenario: A worker hangs once its client has some tokens
    Given a Dynamo deployment with 2 ruler workers
    And a client is receiving a streamed completions answer of 300 tokens
    When after 100 tokens the worker serving the request hangs for 1 second
    Then the answer completes with 300 tokens
    And no other worker is touched

  @ruler
  Scenario: An idle worker crashes and nobody notices
    Given a Dynamo deployment with 3 ruler workers
    And a client is receiving a streamed completions answer of 300 tokens
    When an idle worker crashes
    Then the answer completes with 300 tokens
    And the frontend counts 0 migrations
    And no other worker is touched

  @ruler
  Scenario: A fault on a worker that does not exist is refused
    Given a Dynamo deployment with 2 ruler workers
    When a fault on a worker that does not exist is ordered
    Then the order is refused, and the answer names the workers that exist
    And a new request succeeds within 5 seconds

  @ruler @needs.nftables @needs.tbf
  Scenario: With the least-loaded router a slow worker gets less than half of the new requests
    Given a Dynamo deployment with 2 ruler workers
      | setting | value        |
      | router  | least-loaded |
    And 8 clients keep asking for streamed completions answers of 40 tokens
    When after 2 seconds the bandwidth of the busiest worker is limited to 100 kilobits per second for 4 seconds
    Then every request succeeds
    And the worker that was hit gets less than 50 percent of the new requests

  @vllm
  Scenario: Random crashes strike every 5 seconds
    Given a Dynamo deployment with 3 vllm workers
    And 3 clients keep asking for streamed completions answers of 40 tokens for 18 seconds
    When after 1 second random crashes strike every 5 seconds for 8 seconds under seed 7
    Then every request succeeds

  @vllm @disaggregated
  Scenario: The prefill worker hangs for a moment under load
    Given a disaggregated Dynamo deployment with 2 prefill and 1 decode vllm workers
    And 4 clients keep asking for streamed completions answers of 40 tokens for 10 seconds
    When after 20 requests the busiest prefill worker hangs for 1 second
    Then every request succeeds

  @vllm @needs.nftables
  Scenario: etcd is cut off from Dynamo for a moment under load
    Given a Dynamo deployment with 2 vllm workers
    And 2 clients keep asking for streamed completions answers of 40 tokens for 8 seconds
    When after 2 seconds packets between an etcd member and Dynamo are dropped for 2 seconds
    Then every request succeeds
    And no Dynamo process has exited

  @ruler @nats
  Scenario: The NATS server hangs for a moment under load
    Given a Dynamo deployment with 2 ruler workers over nats
    And 2 clients keep asking for streamed completions answers of 40 tokens for 8 seconds
    When after 2 seconds the NATS server hangs for 1 second
    Then at least 100 percent of the requests succeed in RECOVERY

  @vllm @needs.nftables
  Scenario: The frontend loses some of the packets from and to its workers
    Given a Dynamo deployment with 2 vllm workers
    And 2 clients keep asking for streamed completions answers of 40 tokens for 8 seconds
    When after 2 seconds 10 % of the packets between the frontend and the workers are lost for 2 seconds
    Then every request succeeds

  @vllm @needs.kmsg
  Scenario: An error of the decode worker's GPU costs no answer
    Given a disaggregated Dynamo deployment with 1 prefill and 2 decode vllm workers
    And a client is receiving a streamed completions answer that takes at least 5 seconds
    When the GPU of the busiest decode worker reports XID 79 for 3 seconds
    Then the answer completes with all of its tokens
    And another worker served the rest

  @vllm @needs.nftables
  Scenario: A table says what sentences say
    Given a Dynamo deployment with 3 vllm workers
    And 4 clients keep asking for streamed completions answers of 40 tokens
    When these failures strike
      | failure           | target             | when                 | for       | between it and | packets are |
      | is restarted      | the busiest worker | after 2 seconds      |           |                |             |
      | network partition | an etcd member     | once OVERFLOW begins | 1 second  | the workers    | dropped     |
      | hangs             | a worker           | once RECOVERY begins | 1 second  |                |             |
    Then every request succeeds
