@migration
Feature: A worker dies and its answers go on
  When a worker is lost in the middle of an answer, Dynamo moves the request to another worker. The client
  gets every token once and in order, one end, and the bill of an undisturbed request; where Dynamo cannot do
  that, it says so in a clean error.

  @ruler @smoke
  Scenario: Every token comes once and in order when the worker crashes in mid-answer
    Given a Dynamo deployment with 2 ruler workers
    And a client is receiving a streamed completions answer of 200 tokens
    When the worker serving the request crashes in mid-answer
    Then the answer completes with 200 tokens
    And every position comes once and in order
    And the answer never pauses for more than 2 seconds
    And the frontend counts 1 migration
    And another worker has served the rest
