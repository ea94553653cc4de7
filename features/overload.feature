@deployment @overload
Feature: A deployment rejects what it cannot handle with a clear error
  Far past its capacity a deployment rejects the excess with its overload status, damages no request that it has
  accepted, and accepts everything again once the load is gone.

  # A simulated worker has 16384 blocks of memory: of 64 tokens each with vllm, of 1 token with sglang.
  @<engine>
  Scenario Outline: An overload is rejected cleanly, and requests are accepted again afterwards (<engine>)
    Given a Dynamo deployment with 2 <engine> workers
    And the frontend treats a worker as busy once <share> percent of its memory is in use
    And 2 clients keep asking for streamed completions answers of 30 tokens
    When after 3 seconds 40 more clients each ask for 3 answers of 200 tokens
    Then at least 100 percent of the requests succeed in STANDARD
    And the checks for clean refusals hold
    And the checks for overload rejection hold

    Examples:
      | engine | share |
      | vllm   | 0.2   |
      | sglang | 10    |

  # These prompts are twice as long as a worker's room for prompt and answer together.
  @<engine>
  Scenario Outline: Overlong prompts are rejected cleanly and other requests are unharmed (<engine>)
    Given a Dynamo deployment with 2 <engine> workers
      | setting          | value |
      | longest sequence | 2048  |
    And 2 clients keep asking for streamed completions answers of 30 tokens
    When after 3 seconds 2 more clients each send a prompt of 4096 words
    Then every overlong request is rejected and every other request succeeds
    And at least 100 percent of the requests succeed in RECOVERY

    Examples:
      | engine |
      | vllm   |
      | sglang |
      | trtllm |

  # The status has to tell the client to shorten its prompt, not to try again.
  @vllm
  Scenario: A client is told that its prompt is too long
    Given a Dynamo deployment with 2 vllm workers
      | setting          | value |
      | longest sequence | 2048  |
    And 2 clients keep asking for streamed completions answers of 30 tokens
    When after 3 seconds 2 more clients each send a prompt of 4096 words
    Then every overlong request is rejected as a client error
