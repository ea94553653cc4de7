@deployment @rolling_restart
Feature: A rolling restart loses no request
  Each worker is shut down, finishes its requests and is started again. The next one follows once the frontend lists
  the one before it again.

  @<engine>
  Scenario Outline: The workers are restarted one after the other under load (<engine>)
    Given a Dynamo deployment with 2 <engine> workers
    And 4 clients keep asking for streamed completions answers of 40 tokens
    When after 3 seconds the workers are restarted one after the other
    Then every request succeeds
    And at least 100 percent of the requests succeed in RECOVERY
    And each worker that was shut down finished its requests and exited within 10 seconds

    Examples:
      | engine |
      | ruler  |
      | vllm   |
