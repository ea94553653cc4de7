Feature: Random faults cost no request, however long they go on
  Workers crash, hang, are cut off from the frontend and lose their GPUs, one after the other. A seed draws the faults,
  and the same seed draws the same ones. Each fault is proven and undone, and its victim serves again before the next.

  @deployment @vllm @needs.nftables @needs.kmsg
  Scenario: Random faults strike for three minutes
    Given a Dynamo deployment with 2 vllm workers
    And 4 clients keep asking for streamed completions answers of 60 tokens for 180 seconds
    When after 5 seconds random faults strike for 155 seconds under seed 7
    Then every request succeeds
    And the checks for all accounted hold
    And the checks for flat footprint hold
      | setting     | value |
      | memory mib  | 8     |
      | descriptors | 4     |

  @soak @vllm @needs.nftables @needs.kmsg
  Scenario: Random faults strike for half an hour
    Given a Dynamo deployment with 3 vllm workers
    And 2 clients keep asking for streamed completions answers of 100 tokens for 1800 seconds
    When after 5 seconds random faults strike for 1770 seconds under seed 2718
    Then every request succeeds
    And the checks for all accounted hold
    And the checks for flat footprint hold
      | setting     | value |
      | memory mib  | 8     |
      | descriptors | 4     |
