@k8s
Feature: Pods of a cluster come and go, and no answer is lost
  What a cluster does to the pods of workers: it deletes them, starts their containers again, finds them unready, rolls
  out new ones, scales them to zero and back, and moves them from a machine that is drained.

  @ruler
  Scenario: A worker whose pod is deleted finishes its answer
    Given a Dynamo deployment with 2 ruler workers
    And a client is receiving a streamed completions answer of 200 tokens
    When the pod of the worker serving the request is deleted mid-answer
    Then the answer completes with 200 tokens
    And every token arrives exactly once and in order
    And within 10 seconds the worker finishes the answer itself and exits
    And within 60 seconds the pod is gone
    And 4 new requests succeed within 5 seconds each

  # Workers with a real engine do this: they leave the list, go on for the grace period, then hand over what is left.
  @ruler
  Scenario: A worker whose pod is deleted hands its answer over
    Given a Dynamo deployment with 2 ruler workers
      | setting      | value        |
      | leaves by    | handing over |
      | grace period | 1 second     |
    And a client is receiving a streamed completions answer of 800 tokens
    When the pod of the worker serving the request is deleted mid-answer
    Then the answer completes with 800 tokens
    And every token arrives exactly once and in order
    And within 10 seconds the worker hands the answer over and exits
    And within 60 seconds the pod is gone

  @ruler
  Scenario: An answer moves to another worker when the pod is deleted by force
    Given a Dynamo deployment with 2 ruler workers
    And a client is receiving a streamed completions answer of 200 tokens
    When the pod of the worker serving the request is deleted by force mid-answer
    Then the answer completes with 200 tokens
    And every token arrives exactly once and in order
    And the frontend counts 1 migration
    And another worker served the rest
    And within 60 seconds the pod is gone
    And 4 new requests succeed within 5 seconds each

  @<engine>
  Scenario Outline: The pod of a worker <fate> under load (<engine>)
    Given a Dynamo deployment with 2 <engine> workers
      | setting    | value      |
      | controller | Deployment |
    And 4 clients keep asking for streamed completions answers of 40 tokens
    When after 3 seconds the pod of the busiest worker <fate>
    Then every request succeeds
    And within 60 seconds the pod is gone
    And within 30 seconds the frontend lists 2 workers

    Examples:
      | engine | fate                |
      | vllm   | is deleted          |
      | ruler  | is deleted by force |

  @ruler
  Scenario: A container that crashes is started again in its pod and gets requests again
    Given a Dynamo deployment with 2 ruler workers
      | setting        | value  |
      | restart policy | Always |
    And a client is receiving a streamed completions answer of 200 tokens
    When the worker serving the request crashes mid-answer
    Then the answer completes with 200 tokens
    And another worker served the rest
    And 4 new requests succeed within 5 seconds each
    And within 30 seconds the crashed worker runs again
    And a new container runs in the same pod
    And within 20 seconds the worker that was hit serves requests again
    And 4 new requests succeed within 5 seconds each

  # With etcd a worker stays on the list as long as it renews its lease, whatever its probe says.
  @ruler
  Scenario: A worker whose readiness probe fails finishes its answer and gets no new request until it is ready again
    Given a Dynamo deployment with 2 ruler workers
      | setting          | value      |
      | discovery        | kubernetes |
      | readiness switch | yes        |
    And a client is receiving a streamed completions answer of 200 tokens
    When the pod of the worker serving the request becomes unready mid-answer
    Then the answer completes with 200 tokens
    And every token arrives exactly once and in order
    And the request was not moved to another worker
    And within 5 seconds the frontend lists 1 worker
    And 4 new requests succeed within 5 seconds each
    When the pod is ready again
    Then within 10 seconds the frontend lists 2 workers
    And within 10 seconds the worker that was hit serves requests again

  @<engine>
  Scenario Outline: The workers are rolled out again under load and no request is lost (<engine>)
    Given a Dynamo deployment with 2 <engine> workers
      | setting    | value      |
      | controller | Deployment |
    And 4 clients keep asking for streamed completions answers of 40 tokens
    When after 3 seconds the workers are rolled out again
    Then every request succeeds
    And within 10 seconds the frontend lists 2 workers

    Examples:
      | engine |
      | ruler  |
      | vllm   |

  @ruler
  Scenario: Workers that are scaled to zero and back serve again
    Given a Dynamo deployment with 2 ruler workers
      | setting    | value      |
      | controller | Deployment |
    When the workers are scaled to zero
    Then within 10 seconds the frontend lists no model
    When the workers are scaled back
    Then within 20 seconds the frontend lists 2 workers
    And 4 new requests succeed within 5 seconds each

  @ruler @needs.drains
  Scenario: A machine is drained under load and no request is lost
    Given a Dynamo deployment with 2 ruler workers
      | setting    | value      |
      | controller | Deployment |
    And 4 clients keep asking for streamed completions answers of 40 tokens
    When after 3 seconds the machine of the busiest worker is drained
    Then every request succeeds
    And within 10 seconds the frontend lists 2 workers
