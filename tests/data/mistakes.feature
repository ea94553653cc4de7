# Every mistake that the lint knows, planted once: tests/test_lint.py. Above each stands what has to be said of the line below it,
# and after "->" what to write instead.
#! unknown tag @migratoin -> @migration
@migratoin
Feature: What people write
  The scenarios below are wrong on purpose.

  Scenario: A word that does not exist
    #! unknown engine 'vlm' -> vllm
    Given a Dynamo deployment with 2 vlm workers
    #! unknown mode 'streaming' -> streamed
    And a client is receiving a streaming completions answer of 200 tokens
    #! unknown fate 'crashs' -> crashes
    When the worker serving the request crashs mid-answer
    Then the answer completes with 200 tokens

  Scenario: Victims and sides that do not exist
    Given a disaggregated Dynamo deployment with 1 prefill and 2 decode vllm workers
    And a client is receiving a streamed completions answer of 200 tokens
    #! unknown victim 'the busiest decoder worker' -> the busiest decode worker
    When the busiest decoder worker crashes mid-answer
    #! unknown victim 'the etcd leeder' -> the etcd leader
    And packets between the etcd leeder and Dynamo are dropped for 2 seconds
    #! unknown side 'the frontends' -> the frontend
    And packets between a worker and the frontends are dropped for 2 seconds
    #! unknown strain on a GPU 'overheat' -> overheats
    And the GPU of a worker overheat by 50 percent
    #! the sentence says twice when it happens -> one of the two
    And after 3 seconds the worker serving the request crashes mid-answer
    Then the answer completes with 200 tokens

  Scenario: A sentence that does not exist
    Given a Dynamo deployment with 2 ruler workers
    And a client is receiving a streamed completions answer of 200 tokens
    #! unknown moment 'in the middle' -> mid-answer
    When the worker serving the request crashes in the middle
    #! unknown moment 'after 50 tokens' -> after 50 tokens as the first words of the sentence
    And the worker serving the request crashes after 50 tokens
    #! there is no sentence "Then the answer is complete with 200 tokens" -> the answer completes with 200 tokens
    Then the answer is complete with 200 tokens
    #! is a sentence for Then, not for When -> Then every token arrives exactly once and in order
    When every token arrives exactly once and in order
    Then the answer completes with 200 tokens

  Scenario: Numbers that cannot be
    #! '0' is not a count; expected a whole number, 1 or more
    Given a Dynamo deployment with 0 ruler workers
    #! '-5' is not a count; expected a whole number, 1 or more
    And a client is receiving a streamed completions answer of -5 tokens
    #! '140' is not a percentage; expected a whole number, 1 to 100
    When 140 % of the packets between the worker serving the request and the frontend are lost for 3 seconds
    #! '10' has no unit -> 10 seconds
    Then within 10 the answer ends in a clean error
    #! '2 mins' has no unit that is known -> 120 seconds
    And within 2 mins the answer ends in a clean error
    #! '400 seconds' is longer than the scenario may take: 300 seconds -> or the tag @slow
    And within 400 seconds the answer ends in a clean error

  Scenario: Shares, errors and triggers that cannot be
    Given a Dynamo deployment with 2 vllm workers
    And 4 clients keep asking for streamed completions answers of 40 tokens
    #! unknown XID 7
    When after 3 seconds the GPU of the busiest worker reports XID 7 for 3 seconds
    #! 'after 3' has no unit -> after 3 seconds
    And after 3 the busiest worker crashes
    #! unknown phase 'OVERFLOWS' -> OVERFLOW
    And once OVERFLOWS begins the busiest worker hangs for 1 second
    #! '120' is not a percentage
    Then at least 120 percent of the requests succeed in RECOVERY
    #! unknown phase 'recovery' -> RECOVERY
    And at least 99 percent of the requests succeed in recovery

  Scenario: Settings
    Given a Dynamo deployment with 2 ruler workers
      | setting         | value |
      #! unknown setting 'migrations limit' in the table -> migration limit
      | migrations limit | 2     |
      #! restart policy: unknown restart policy 'always' -> Always
      | restart policy  | always |
      #! lease: '5' has no unit -> 5 seconds
      | lease           | 5     |
      | frontends       | 2     |
      #! 'frontends' appears 2 times in the table -> it once
      | frontends       | 3     |
      #! the row does not end with | -> | speed | 0.5 |
      | speed | 0.5
    And a client is receiving a streamed completions answer of 200 tokens
      #! the table has no heading row -> | setting | value | above it
      | prompt words | 10 |
    When the worker serving the request crashes mid-answer
    Then the answer completes with 200 tokens
      #! this sentence takes no table -> the sentence alone
      | setting | value |

  Scenario: Failures in a table
    Given a Dynamo deployment with 3 vllm workers
    And 4 clients keep asking for streamed completions answers of 40 tokens
    #! the sentence needs a table with a failure per row -> | failure | when |
    When these failures strike
    #! the load is over by then -> one table of all failures
    And these failures strike
      #! unknown column 'victim'
      | failure | victim   | when             |
      | hangs   | a worker | after 500 tokens |
    #! the load is over by then -> one table of all failures
    And these failures strike
      #! the column 'for' appears 2 times -> it once
      | failure | when             | for       | for       |
      | hangs   | after 500 tokens | 2 seconds | 2 seconds |
    #! the load is over by then -> one table of all failures
    And these failures strike
      #! the column 'when' is missing
      | failure | for       |
      | hangs   | 2 seconds |
    #! the load is over by then -> one table of all failures
    And these failures strike
      | failure | target             | when             |
      #! failure: unknown failure 'hang' -> hangs
      | hang    | a worker           | after 500 tokens |
      #! target: unknown target 'the buisiest worker' -> the busiest worker
      | hangs   | the buisiest worker | after 500 tokens |
      #! a row of the table has no failure, or not when it strikes
      | hangs   | a worker           |                  |
    #! the checks for high availability need a table below with at least, longest outage seconds
    Then the checks for high availability hold
    #! unknown check 'hihg availability' -> high availability
    And the checks for hihg availability hold
    And the checks for high availability hold
      #! the setting 'longest outage seconds' is missing
      | setting  | value |
      | at least | 99    |

  Scenario: When before Given
    #! 'When the NATS server crashes' comes before 'Given a Dynamo deployment with 2 ruler workers' -> first each Given
    When the NATS server crashes
    Given a Dynamo deployment with 2 ruler workers
    Then the answer completes with 200 tokens

  Scenario: No deployment
    #! 'Given a client is receiving a streamed chat answer of 20 tokens' needs something before it -> a deployment, such as
    Given a client is receiving a streamed chat answer of 20 tokens
    Then the answer completes with 20 tokens

  Scenario: No fault
    Given a Dynamo deployment with 2 ruler workers
    #! 'When the hung worker resumes' needs something before it -> a fault, such as
    When the hung worker resumes
    Then a new request succeeds within 5 seconds

  #! no step of this scenario can fail -> Then, with what
  Scenario: Nothing is expected
    Given a Dynamo deployment with 2 ruler workers
    And a client is receiving a streamed completions answer of 200 tokens

  Scenario: Nothing is expected after the fault
    Given a Dynamo deployment with 2 ruler workers
    And a client is receiving a streamed completions answer of 200 tokens
    Then the answer completes with 200 tokens
    #! nothing is expected after this fault -> Then, with what
    When the worker serving the request crashes mid-answer

  #! the scenario has no step -> Given, When and Then
  Scenario: No step at all

  Scenario: Keywords
    Given a Dynamo deployment with 2 ruler workers
    And a client is receiving a streamed completions answer of 200 tokens
    #! 'Wehn' is not a keyword -> When the worker serving the request crashes mid-answer
    Wehn the worker serving the request crashes mid-answer
    Then the answer completes with 200 tokens
    #! 'every position comes once' begins with no keyword
    every position comes once

  Scenario: A keyword that nobody would miss
    #! 'Givn' is not a keyword -> Given a Dynamo deployment with 1 ruler worker
    Givn a Dynamo deployment with 1 ruler worker
    And a client is receiving a streamed completions answer of 200 tokens
    Then the answer completes with 200 tokens

  #! 'Scenaro: A heading' is not a heading -> Scenario: A heading
  Scenaro: A heading
    Given a Dynamo deployment with 1 ruler worker
    Then a new request succeeds within 5 seconds

  #! the outline has no row below Examples, so it plays nothing -> Examples: with | engine |
  Scenario Outline: No rows (<engine>)
    Given a Dynamo deployment with 1 <engine> worker
    Then a new request succeeds within 5 seconds

    Examples:
      | engine |

  Scenario Outline: Rows that are alike
    Given a Dynamo deployment with 1 <engine> worker
    #! the outline has no column <seconds>
    Then a new request succeeds within <seconds> seconds

    Examples:
      | engine |
      | vllm   |
      #! a second scenario 'Rows that are alike' -> Rows that are alike (<engine>) as the outline's name
      | ruler  |

  Scenario Outline: A row that is wrong (<engine>)
    Given a Dynamo deployment with 1 <engine> worker
    Then a new request succeeds within 5 seconds

    Examples:
      | engine |
      | vllm   |
      #! unknown engine 'tgi'
      | tgi    |

  Scenario: The same name
    Given a Dynamo deployment with 1 ruler worker
    Then a new request succeeds within 5 seconds

  #! a second scenario 'The same name' -> another name
  Scenario: The same name
    Given a Dynamo deployment with 1 ruler worker
    #! <timeout> is filled in only in an outline -> Scenario Outline: with Examples:
    Then a new request succeeds within <timeout> seconds

  #! names the unknown rule 'one-outcom' -> @not_judged.one-outcome.the_frontend_is_gone
  @not_judged.one-outcom.the_frontend_is_gone
  Scenario: An unknown rule
    Given a Dynamo deployment with 1 ruler worker
    Then a new request succeeds within 5 seconds

  #! tag @not_judged.gauges gives no reason -> @not_judged.gauges.the_reason_in_words
  @not_judged.gauges
  Scenario: A rule without a reason
    Given a Dynamo deployment with 1 ruler worker
    Then a new request succeeds within 5 seconds

  #! unknown tag @needs.coffee
  @needs.coffee
  Scenario: An unknown need
    Given a Dynamo deployment with 1 ruler worker
    Then a new request succeeds within 5 seconds

  Scenario: A load that has no answer of its own
    Given a Dynamo deployment with 2 ruler workers
    And 4 clients keep asking for streamed completions answers of 40 tokens
    #! a scenario has one load, and this is the second -> the first alone
    And a client keeps asking for unary chat answers of 40 tokens
    #! crashes before the first token' needs something before it -> Given a client is receiving
    When the worker serving the request crashes before the first token
    Then every answer completes with 40 tokens
    #! the load is over by then -> this step above that one
    And a new request is served as fast as before the fault

  Scenario: A load that is over too early
    Given a Dynamo deployment with 2 ruler workers
    And 4 clients keep asking for streamed completions answers of 40 tokens for half a minute
    #! 'fife times' is not how many times as many -> five times
    When after a second fife times the clients of STANDARD ask for 5 seconds
    #! RECOVERY cannot last that long: the load is over after 30 seconds -> the load without 'for'
    Then at least 99 percent of the requests succeed in RECOVERY for a full minute

  Scenario: A worker that joins too late
    Given a Dynamo deployment with 1 ruler worker
    And a client is receiving a streamed completions answer of 200 tokens
    When the worker serving the request crashes mid-answer
    And a new worker joins the deployment
    #! no worker is left to complete the answer; one that joins later comes too late -> one more worker
    Then the answer completes with 200 tokens

  Scenario: A ready scenario that does not exist
    #! unknown ready scenario 'a worker crashed' -> "a worker crashes"
    When the ready scenario "a worker crashed" is played
    Then all of its checks hold

  Scenario: A file that does not exist
    #! there is no file 'docs/scenario.yaml' -> docs/scenarios.yaml
    When the scenario "a network that loses packets" of docs/scenario.yaml is played
    Then all of its checks hold

  Scenario: Deployments that there cannot be
    #! the ruler engine has no prefill workers; choose one of vllm, sglang, trtllm
    Given a disaggregated Dynamo deployment with 1 prefill and 1 decode ruler workers
    Then a new request succeeds within 5 seconds

  Scenario: An etcd cluster that is too large
    #! etcd_members is 9; expected 1 to 7
    Given a Dynamo deployment with 2 ruler workers backed by a 9-member etcd cluster
    Then a new request succeeds within 5 seconds

  Scenario: A lease that etcd cannot count
    #! lease_seconds is 2.5; expected whole seconds
    Given a Dynamo deployment with 2 ruler workers
      | setting | value       |
      | lease   | 2.5 seconds |
    And 4 clients keep asking for streamed completions answers of 40 tokens for 10 seconds
    #! never happens: the load is over after 10 seconds -> an earlier time, or a longer load
    When after 20 seconds the busiest worker crashes
    Then every request succeeds

  Scenario: Victims that the deployment does not have
    Given a Dynamo deployment with 2 vllm workers
    And 4 clients keep asking for streamed completions answers of 40 tokens
    #! never happen to the busiest prefill worker: the deployment (2 simulated vllm -> a disaggregated Dynamo deployment
    When the busiest prefill worker crashes
    #! never happen to the etcd leader: -> | etcd members | 3 | in the table below the deployment
    And packets between the etcd leader and Dynamo are dropped for 1 second
    #! has no NATS server -> | request plane | nats | in the table below the deployment
    And the NATS server hangs for 1 second
    #! has no NATS server to be parted from -> | request plane | nats | in the table below the deployment
    And packets between a worker and NATS are dropped for 1 second
    #! has no other etcd member to be parted from -> another side
    And packets between an etcd member and the other members are dropped for 1 second
    #! only a worker has a GPU, and the victim is the frontend -> the busiest worker
    And the GPU of the frontend reports XID 79
    When these failures strike
      | failure           | target                     | when            | between it and |
      | hangs             | the busiest worker         | after 3 seconds |                |
      #! never happen to the busiest decode worker -> a disaggregated Dynamo deployment
      | hangs             | the busiest decode worker  | after 3 seconds |                |
      #! never happen to the idle frontend -> | frontends | 2 | in the table below the deployment
      | crashes           | the idle frontend          | after 3 seconds |                |
      #! only a worker has a GPU, and the victim is all of etcd -> a worker
      | is throttled      | all of etcd                | after 3 seconds |                |
      #! has no NATS server to be parted from -> | request plane | nats |
      | network partition | the worker serving the request | after 3 seconds | NATS       |
      #! 'crashes' takes nothing in the column 'between it and' -> failure when target for
      | crashes           | a worker                   | after 3 seconds | the frontend   |
      #! 'random' needs something in the column 'for', 'seed'
      | random            |                            | after 3 seconds |                |
    Then every request succeeds

  Scenario Outline: A victim of a row that the deployment does not have (<victim>)
    Given a Dynamo deployment with 2 ruler workers backed by a <members>-member etcd cluster
    When <victim> crashes
    Then a new request succeeds within 5 seconds

    Examples:
      | victim             | members |
      | an etcd follower   | 2       |
      #! never happen to a minority of etcd -> | etcd members | 3 | in the table
      | a minority of etcd | 2       |

  Scenario: The same twice
    #! the sentence says 'etcd members', and so does its table -> it once
    Given a Dynamo deployment with 2 ruler workers backed by a 3-member etcd cluster
      | setting      | value |
      | etcd members | 3     |
    When the etcd leader crashes
    Then a new request succeeds within 5 seconds

  Scenario: Pods that nobody keeps
    Given a Dynamo deployment with 2 ruler workers backed by a 3-member etcd cluster
    And a client is receiving a streamed chat answer of 200 tokens
    #! has no controller -> | controller | Deployment | in the table below the deployment
    When the workers are rolled out again
    #! has no readiness switch -> | readiness switch | yes | in the table below the deployment
    And the pod of the worker serving the request becomes unready mid-answer
    #! only a worker can be hit by this, and the victim is the frontend
    And the machine of the frontend is drained
    #! only pods of Dynamo can be hit by this, and the victim is the etcd leader
    And the pod of the etcd leader is deleted
    Then the answer completes with 200 tokens

  Scenario: Of another engine
    Given a Dynamo deployment with 2 vllm workers
    #! is only for ruler workers, and the deployment has vllm workers -> ruler workers in the deployment
    And a worker has written every token of a streamed chat answer of 50 tokens, but not its end
    When the worker serving the request crashes
    Then the answer completes with 50 tokens

  Scenario: Too much
    Given a Dynamo deployment with 1 ruler worker
    #! a scenario has one deployment, and this is the second -> the first alone
    And a Dynamo deployment with 1 ruler worker
      #! a sentence takes no text in quotes -> a table, or nothing
      """
      some text
      """
    Then a new request succeeds within 5 seconds
