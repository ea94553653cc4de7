"""Bounds of random counts, against an exact sum in whole numbers and against draws."""

import random
from fractions import Fraction
from math import comb

import pytest

from support.judge.chance import RISK, bounds, draws_to_see


def tail(draws: int, percent: int, hits: range) -> Fraction:
    share = Fraction(percent, 100)
    return sum((comb(draws, hit) * share**hit * (1 - share) ** (draws - hit) for hit in hits), Fraction(0))


@pytest.mark.parametrize("percent", [1, 10, 20, 50, 99])
@pytest.mark.parametrize("draws", [1, 30, 300])
def test_bounds_are_the_tightest_that_keep_the_risk(draws: int, percent: int) -> None:
    least, greatest = bounds(draws, percent / 100)
    assert tail(draws, percent, range(least)) <= RISK / 2 < tail(draws, percent, range(least + 1))
    above = tail(draws, percent, range(greatest + 1, draws + 1))
    assert above <= RISK / 2 < tail(draws, percent, range(greatest, draws + 1))


@pytest.mark.parametrize("risk", [0.5, 0.02])
def test_a_larger_risk_leaves_less_room(risk: float) -> None:
    least, greatest = bounds(30, 0.5, risk)
    assert tail(30, 50, range(least)) <= risk / 2 < tail(30, 50, range(least + 1))
    assert tail(30, 50, range(greatest + 1, 31)) <= risk / 2 < tail(30, 50, range(greatest, 31))
    assert draws_to_see(0.5, risk) == {0.5: 2, 0.02: 7}[risk]


def test_what_always_comes_is_seen_at_once() -> None:
    assert draws_to_see(1.0) == 1


def test_the_risk_is_one_in_a_million() -> None:
    assert (bounds(40, 0.5), bounds(2000, 0.2), draws_to_see(0.1)) == ((5, 35), (315, 490), 138)


def test_what_is_certain_has_no_room() -> None:
    assert (bounds(40, 1.0), bounds(40, 0.0)) == ((40, 40), (0, 0))


@pytest.mark.parametrize("percent", [1, 10, 50, 99])
def test_no_hit_at_all_lies_outside(percent: int) -> None:
    draws = draws_to_see(percent / 100)
    assert bounds(draws, percent / 100)[0] == 1
    assert bounds(draws - 1, percent / 100)[0] == 0


def test_draws_of_another_share_fall_outside() -> None:
    source = random.Random(7)
    least, greatest = bounds(2000, 0.2)
    counts = {share: sum(source.random() < share for _ in range(2000)) for share in (0.1, 0.2, 0.3)}
    assert {share: least <= count <= greatest for share, count in counts.items()} == {0.1: False, 0.2: True, 0.3: False}
