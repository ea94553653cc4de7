# Made by `python -m support.scenarios > features/library.feature` from support/scenarios/library.yaml.
Feature: Every engine survives the usual failures, aggregated and disaggregated
  By default each ready scenario is played on one engine, here or in another feature. With @matrix all of them are
  played on all engines. With one replica a lost worker is started again, and requests have to succeed from then on.

  @<engine>
  Scenario Outline: <name>
    When the ready scenario "<name>" is played
    Then all of its checks hold

    @deployment @timed
    Examples: vllm, by default
      | name                          | engine |
      | a decode worker hangs         | vllm   |
      | a decode worker is shut down  | vllm   |
      | a prefill worker hangs        | vllm   |
      | a prefill worker is shut down | vllm   |
      | the frontend hangs            | vllm   |
      | the etcd member is shut down  | vllm   |

    @deployment @timed @not_judged.one-outcome.the_connections_end_with_the_frontend
    Examples: vllm, by default
      | name                      | engine |
      | the frontend is shut down | vllm   |

    @matrix @timed
    Examples: sglang, all
      | name                                                                              | engine |
      | nothing breaks (sglang, 1 replica)                                                | sglang |
      | nothing breaks (sglang, disaggregated, 1 replica)                                 | sglang |
      | nothing breaks (sglang, 2 replicas)                                               | sglang |
      | nothing breaks (sglang, disaggregated, 2 replicas)                                | sglang |
      | a worker crashes (sglang, 1 replica)                                              | sglang |
      | a worker crashes (sglang, disaggregated, 1 replica)                               | sglang |
      | a worker crashes (sglang, 2 replicas)                                             | sglang |
      | a worker crashes (sglang, disaggregated, 2 replicas)                              | sglang |
      | a worker hangs (sglang, 1 replica)                                                | sglang |
      | a worker hangs (sglang, disaggregated, 1 replica)                                 | sglang |
      | a worker hangs (sglang, 2 replicas)                                               | sglang |
      | a worker hangs (sglang, disaggregated, 2 replicas)                                | sglang |
      | a worker is shut down (sglang, 1 replica)                                         | sglang |
      | a worker is shut down (sglang, disaggregated, 1 replica)                          | sglang |
      | a worker is shut down (sglang, 2 replicas)                                        | sglang |
      | a worker is shut down (sglang, disaggregated, 2 replicas)                         | sglang |
      | a decode worker crashes (sglang, disaggregated, 1 replica)                        | sglang |
      | a decode worker crashes (sglang, disaggregated, 2 replicas)                       | sglang |
      | a decode worker hangs (sglang, disaggregated, 1 replica)                          | sglang |
      | a decode worker hangs (sglang, disaggregated, 2 replicas)                         | sglang |
      | a decode worker is shut down (sglang, disaggregated, 1 replica)                   | sglang |
      | a decode worker is shut down (sglang, disaggregated, 2 replicas)                  | sglang |
      | a prefill worker crashes (sglang, disaggregated, 1 replica)                       | sglang |
      | a prefill worker crashes (sglang, disaggregated, 2 replicas)                      | sglang |
      | a prefill worker hangs (sglang, disaggregated, 1 replica)                         | sglang |
      | a prefill worker hangs (sglang, disaggregated, 2 replicas)                        | sglang |
      | a prefill worker is shut down (sglang, disaggregated, 1 replica)                  | sglang |
      | a prefill worker is shut down (sglang, disaggregated, 2 replicas)                 | sglang |
      | the frontend hangs (sglang, 1 replica)                                            | sglang |
      | the frontend hangs (sglang, disaggregated, 1 replica)                             | sglang |
      | the frontend hangs (sglang, 2 replicas)                                           | sglang |
      | the frontend hangs (sglang, disaggregated, 2 replicas)                            | sglang |
      | the etcd member crashes (sglang, 1 replica)                                       | sglang |
      | the etcd member crashes (sglang, disaggregated, 1 replica)                        | sglang |
      | the etcd member crashes (sglang, 2 replicas)                                      | sglang |
      | the etcd member crashes (sglang, disaggregated, 2 replicas)                       | sglang |
      | the etcd member hangs (sglang, 1 replica)                                         | sglang |
      | the etcd member hangs (sglang, disaggregated, 1 replica)                          | sglang |
      | the etcd member hangs (sglang, 2 replicas)                                        | sglang |
      | the etcd member hangs (sglang, disaggregated, 2 replicas)                         | sglang |
      | the etcd member is shut down (sglang, 1 replica)                                  | sglang |
      | the etcd member is shut down (sglang, disaggregated, 1 replica)                   | sglang |
      | the etcd member is shut down (sglang, 2 replicas)                                 | sglang |
      | the etcd member is shut down (sglang, disaggregated, 2 replicas)                  | sglang |
      | the workers are restarted one after the other (sglang, 1 replica)                 | sglang |
      | the workers are restarted one after the other (sglang, disaggregated, 1 replica)  | sglang |
      | the workers are restarted one after the other (sglang, 2 replicas)                | sglang |
      | the workers are restarted one after the other (sglang, disaggregated, 2 replicas) | sglang |
      | overlong prompts (sglang, 1 replica)                                              | sglang |
      | overlong prompts (sglang, disaggregated, 1 replica)                               | sglang |
      | overlong prompts (sglang, 2 replicas)                                             | sglang |
      | overlong prompts (sglang, disaggregated, 2 replicas)                              | sglang |
      | overload far past capacity (sglang, 1 replica)                                    | sglang |
      | overload far past capacity (sglang, disaggregated, 1 replica)                     | sglang |
      | overload far past capacity (sglang, 2 replicas)                                   | sglang |
      | overload far past capacity (sglang, disaggregated, 2 replicas)                    | sglang |

    @matrix @timed @needs.kmsg
    Examples: sglang, all
      | name                                            | engine |
      | a GPU fails (sglang, 1 replica)                 | sglang |
      | a GPU fails (sglang, disaggregated, 1 replica)  | sglang |
      | a GPU fails (sglang, 2 replicas)                | sglang |
      | a GPU fails (sglang, disaggregated, 2 replicas) | sglang |

    @matrix @timed @needs.nftables
    Examples: sglang, all
      | name                                                  | engine |
      | the network fails (sglang, 1 replica)                 | sglang |
      | the network fails (sglang, disaggregated, 1 replica)  | sglang |
      | the network fails (sglang, 2 replicas)                | sglang |
      | the network fails (sglang, disaggregated, 2 replicas) | sglang |

    @matrix @timed @not_judged.one-outcome.the_connections_end_with_the_frontend
    Examples: sglang, all
      | name                                                          | engine |
      | the frontend crashes (sglang, 1 replica)                      | sglang |
      | the frontend crashes (sglang, disaggregated, 1 replica)       | sglang |
      | the frontend crashes (sglang, 2 replicas)                     | sglang |
      | the frontend crashes (sglang, disaggregated, 2 replicas)      | sglang |
      | the frontend is shut down (sglang, 1 replica)                 | sglang |
      | the frontend is shut down (sglang, disaggregated, 1 replica)  | sglang |
      | the frontend is shut down (sglang, 2 replicas)                | sglang |
      | the frontend is shut down (sglang, disaggregated, 2 replicas) | sglang |

    @matrix @timed
    Examples: trtllm, all
      | name                                                                              | engine |
      | nothing breaks (trtllm, 1 replica)                                                | trtllm |
      | nothing breaks (trtllm, disaggregated, 1 replica)                                 | trtllm |
      | nothing breaks (trtllm, 2 replicas)                                               | trtllm |
      | nothing breaks (trtllm, disaggregated, 2 replicas)                                | trtllm |
      | a worker crashes (trtllm, 1 replica)                                              | trtllm |
      | a worker crashes (trtllm, disaggregated, 1 replica)                               | trtllm |
      | a worker crashes (trtllm, 2 replicas)                                             | trtllm |
      | a worker crashes (trtllm, disaggregated, 2 replicas)                              | trtllm |
      | a worker hangs (trtllm, 1 replica)                                                | trtllm |
      | a worker hangs (trtllm, disaggregated, 1 replica)                                 | trtllm |
      | a worker hangs (trtllm, 2 replicas)                                               | trtllm |
      | a worker hangs (trtllm, disaggregated, 2 replicas)                                | trtllm |
      | a worker is shut down (trtllm, 1 replica)                                         | trtllm |
      | a worker is shut down (trtllm, disaggregated, 1 replica)                          | trtllm |
      | a worker is shut down (trtllm, 2 replicas)                                        | trtllm |
      | a worker is shut down (trtllm, disaggregated, 2 replicas)                         | trtllm |
      | a decode worker crashes (trtllm, disaggregated, 1 replica)                        | trtllm |
      | a decode worker crashes (trtllm, disaggregated, 2 replicas)                       | trtllm |
      | a decode worker hangs (trtllm, disaggregated, 1 replica)                          | trtllm |
      | a decode worker hangs (trtllm, disaggregated, 2 replicas)                         | trtllm |
      | a decode worker is shut down (trtllm, disaggregated, 1 replica)                   | trtllm |
      | a decode worker is shut down (trtllm, disaggregated, 2 replicas)                  | trtllm |
      | a prefill worker crashes (trtllm, disaggregated, 1 replica)                       | trtllm |
      | a prefill worker crashes (trtllm, disaggregated, 2 replicas)                      | trtllm |
      | a prefill worker hangs (trtllm, disaggregated, 1 replica)                         | trtllm |
      | a prefill worker hangs (trtllm, disaggregated, 2 replicas)                        | trtllm |
      | a prefill worker is shut down (trtllm, disaggregated, 1 replica)                  | trtllm |
      | a prefill worker is shut down (trtllm, disaggregated, 2 replicas)                 | trtllm |
      | the frontend hangs (trtllm, 1 replica)                                            | trtllm |
      | the frontend hangs (trtllm, disaggregated, 1 replica)                             | trtllm |
      | the frontend hangs (trtllm, 2 replicas)                                           | trtllm |
      | the frontend hangs (trtllm, disaggregated, 2 replicas)                            | trtllm |
      | the etcd member crashes (trtllm, 1 replica)                                       | trtllm |
      | the etcd member crashes (trtllm, disaggregated, 1 replica)                        | trtllm |
      | the etcd member crashes (trtllm, 2 replicas)                                      | trtllm |
      | the etcd member crashes (trtllm, disaggregated, 2 replicas)                       | trtllm |
      | the etcd member hangs (trtllm, 1 replica)                                         | trtllm |
      | the etcd member hangs (trtllm, disaggregated, 1 replica)                          | trtllm |
      | the etcd member hangs (trtllm, 2 replicas)                                        | trtllm |
      | the etcd member hangs (trtllm, disaggregated, 2 replicas)                         | trtllm |
      | the etcd member is shut down (trtllm, 1 replica)                                  | trtllm |
      | the etcd member is shut down (trtllm, disaggregated, 1 replica)                   | trtllm |
      | the etcd member is shut down (trtllm, 2 replicas)                                 | trtllm |
      | the etcd member is shut down (trtllm, disaggregated, 2 replicas)                  | trtllm |
      | the workers are restarted one after the other (trtllm, 1 replica)                 | trtllm |
      | the workers are restarted one after the other (trtllm, disaggregated, 1 replica)  | trtllm |
      | the workers are restarted one after the other (trtllm, 2 replicas)                | trtllm |
      | the workers are restarted one after the other (trtllm, disaggregated, 2 replicas) | trtllm |
      | overlong prompts (trtllm, 1 replica)                                              | trtllm |
      | overlong prompts (trtllm, disaggregated, 1 replica)                               | trtllm |
      | overlong prompts (trtllm, 2 replicas)                                             | trtllm |
      | overlong prompts (trtllm, disaggregated, 2 replicas)                              | trtllm |
      | overload far past capacity (trtllm, 1 replica)                                    | trtllm |
      | overload far past capacity (trtllm, disaggregated, 1 replica)                     | trtllm |
      | overload far past capacity (trtllm, 2 replicas)                                   | trtllm |
      | overload far past capacity (trtllm, disaggregated, 2 replicas)                    | trtllm |

    @matrix @timed @needs.kmsg
    Examples: trtllm, all
      | name                                            | engine |
      | a GPU fails (trtllm, 1 replica)                 | trtllm |
      | a GPU fails (trtllm, disaggregated, 1 replica)  | trtllm |
      | a GPU fails (trtllm, 2 replicas)                | trtllm |
      | a GPU fails (trtllm, disaggregated, 2 replicas) | trtllm |

    @matrix @timed @needs.nftables
    Examples: trtllm, all
      | name                                                  | engine |
      | the network fails (trtllm, 1 replica)                 | trtllm |
      | the network fails (trtllm, disaggregated, 1 replica)  | trtllm |
      | the network fails (trtllm, 2 replicas)                | trtllm |
      | the network fails (trtllm, disaggregated, 2 replicas) | trtllm |

    @matrix @timed @not_judged.one-outcome.the_connections_end_with_the_frontend
    Examples: trtllm, all
      | name                                                          | engine |
      | the frontend crashes (trtllm, 1 replica)                      | trtllm |
      | the frontend crashes (trtllm, disaggregated, 1 replica)       | trtllm |
      | the frontend crashes (trtllm, 2 replicas)                     | trtllm |
      | the frontend crashes (trtllm, disaggregated, 2 replicas)      | trtllm |
      | the frontend is shut down (trtllm, 1 replica)                 | trtllm |
      | the frontend is shut down (trtllm, disaggregated, 1 replica)  | trtllm |
      | the frontend is shut down (trtllm, 2 replicas)                | trtllm |
      | the frontend is shut down (trtllm, disaggregated, 2 replicas) | trtllm |

    @matrix @timed
    Examples: vllm, all
      | name                                                                            | engine |
      | nothing breaks (vllm, 1 replica)                                                | vllm   |
      | nothing breaks (vllm, disaggregated, 1 replica)                                 | vllm   |
      | nothing breaks (vllm, 2 replicas)                                               | vllm   |
      | nothing breaks (vllm, disaggregated, 2 replicas)                                | vllm   |
      | a worker crashes (vllm, 1 replica)                                              | vllm   |
      | a worker crashes (vllm, disaggregated, 1 replica)                               | vllm   |
      | a worker crashes (vllm, 2 replicas)                                             | vllm   |
      | a worker crashes (vllm, disaggregated, 2 replicas)                              | vllm   |
      | a worker hangs (vllm, 1 replica)                                                | vllm   |
      | a worker hangs (vllm, disaggregated, 1 replica)                                 | vllm   |
      | a worker hangs (vllm, 2 replicas)                                               | vllm   |
      | a worker hangs (vllm, disaggregated, 2 replicas)                                | vllm   |
      | a worker is shut down (vllm, 1 replica)                                         | vllm   |
      | a worker is shut down (vllm, disaggregated, 1 replica)                          | vllm   |
      | a worker is shut down (vllm, 2 replicas)                                        | vllm   |
      | a worker is shut down (vllm, disaggregated, 2 replicas)                         | vllm   |
      | a decode worker crashes (vllm, disaggregated, 1 replica)                        | vllm   |
      | a decode worker crashes (vllm, disaggregated, 2 replicas)                       | vllm   |
      | a decode worker hangs (vllm, disaggregated, 1 replica)                          | vllm   |
      | a decode worker hangs (vllm, disaggregated, 2 replicas)                         | vllm   |
      | a decode worker is shut down (vllm, disaggregated, 1 replica)                   | vllm   |
      | a decode worker is shut down (vllm, disaggregated, 2 replicas)                  | vllm   |
      | a prefill worker crashes (vllm, disaggregated, 1 replica)                       | vllm   |
      | a prefill worker crashes (vllm, disaggregated, 2 replicas)                      | vllm   |
      | a prefill worker hangs (vllm, disaggregated, 1 replica)                         | vllm   |
      | a prefill worker hangs (vllm, disaggregated, 2 replicas)                        | vllm   |
      | a prefill worker is shut down (vllm, disaggregated, 1 replica)                  | vllm   |
      | a prefill worker is shut down (vllm, disaggregated, 2 replicas)                 | vllm   |
      | the frontend hangs (vllm, 1 replica)                                            | vllm   |
      | the frontend hangs (vllm, disaggregated, 1 replica)                             | vllm   |
      | the frontend hangs (vllm, 2 replicas)                                           | vllm   |
      | the frontend hangs (vllm, disaggregated, 2 replicas)                            | vllm   |
      | the etcd member crashes (vllm, 1 replica)                                       | vllm   |
      | the etcd member crashes (vllm, disaggregated, 1 replica)                        | vllm   |
      | the etcd member crashes (vllm, 2 replicas)                                      | vllm   |
      | the etcd member crashes (vllm, disaggregated, 2 replicas)                       | vllm   |
      | the etcd member hangs (vllm, 1 replica)                                         | vllm   |
      | the etcd member hangs (vllm, disaggregated, 1 replica)                          | vllm   |
      | the etcd member hangs (vllm, 2 replicas)                                        | vllm   |
      | the etcd member hangs (vllm, disaggregated, 2 replicas)                         | vllm   |
      | the etcd member is shut down (vllm, 1 replica)                                  | vllm   |
      | the etcd member is shut down (vllm, disaggregated, 1 replica)                   | vllm   |
      | the etcd member is shut down (vllm, 2 replicas)                                 | vllm   |
      | the etcd member is shut down (vllm, disaggregated, 2 replicas)                  | vllm   |
      | the workers are restarted one after the other (vllm, 1 replica)                 | vllm   |
      | the workers are restarted one after the other (vllm, disaggregated, 1 replica)  | vllm   |
      | the workers are restarted one after the other (vllm, 2 replicas)                | vllm   |
      | the workers are restarted one after the other (vllm, disaggregated, 2 replicas) | vllm   |
      | overlong prompts (vllm, 1 replica)                                              | vllm   |
      | overlong prompts (vllm, disaggregated, 1 replica)                               | vllm   |
      | overlong prompts (vllm, 2 replicas)                                             | vllm   |
      | overlong prompts (vllm, disaggregated, 2 replicas)                              | vllm   |
      | overload far past capacity (vllm, 1 replica)                                    | vllm   |
      | overload far past capacity (vllm, disaggregated, 1 replica)                     | vllm   |
      | overload far past capacity (vllm, 2 replicas)                                   | vllm   |
      | overload far past capacity (vllm, disaggregated, 2 replicas)                    | vllm   |

    @matrix @timed @needs.kmsg
    Examples: vllm, all
      | name                                          | engine |
      | a GPU fails (vllm, 1 replica)                 | vllm   |
      | a GPU fails (vllm, disaggregated, 1 replica)  | vllm   |
      | a GPU fails (vllm, 2 replicas)                | vllm   |
      | a GPU fails (vllm, disaggregated, 2 replicas) | vllm   |

    @matrix @timed @needs.nftables
    Examples: vllm, all
      | name                                                | engine |
      | the network fails (vllm, 1 replica)                 | vllm   |
      | the network fails (vllm, disaggregated, 1 replica)  | vllm   |
      | the network fails (vllm, 2 replicas)                | vllm   |
      | the network fails (vllm, disaggregated, 2 replicas) | vllm   |

    @matrix @timed @not_judged.one-outcome.the_connections_end_with_the_frontend
    Examples: vllm, all
      | name                                                        | engine |
      | the frontend crashes (vllm, 1 replica)                      | vllm   |
      | the frontend crashes (vllm, disaggregated, 1 replica)       | vllm   |
      | the frontend crashes (vllm, 2 replicas)                     | vllm   |
      | the frontend crashes (vllm, disaggregated, 2 replicas)      | vllm   |
      | the frontend is shut down (vllm, 1 replica)                 | vllm   |
      | the frontend is shut down (vllm, disaggregated, 1 replica)  | vllm   |
      | the frontend is shut down (vllm, 2 replicas)                | vllm   |
      | the frontend is shut down (vllm, disaggregated, 2 replicas) | vllm   |
