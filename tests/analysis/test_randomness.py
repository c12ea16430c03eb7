"""The tail of chi-square against tables, and numbers that are random and that are not."""

from __future__ import annotations

from random import Random

import pytest

from netlab.analysis.randomness import chi_square_p, chi_square_tail, steps


@pytest.mark.parametrize(
    ("freedom", "statistic", "tail"),
    [  # NIST/SEMATECH e-Handbook, 1.3.6.7.4
        (1, 3.841, 0.05), (1, 10.828, 0.001), (2, 5.991, 0.05), (5, 20.515, 0.001),
        (10, 18.307, 0.05), (15, 24.996, 0.05), (15, 37.697, 0.001), (16, 39.252, 0.001),
        (100, 124.342, 0.05),
    ],
)  # fmt: skip
def test_the_tail_is_that_of_the_tables(freedom: int, statistic: float, tail: float) -> None:
    assert chi_square_tail(statistic, freedom) == pytest.approx(tail, rel=2e-3)


def test_random_numbers_pass_and_others_do_not() -> None:
    random = Random(4)
    fair = [random.randrange(2**32) for _ in range(500)]
    linear = [10**6 * n for n in range(500)]
    assert (chi_square_p(fair) or 0) > 1e-3
    assert (chi_square_p(linear) or 0) < 1e-6
    assert (chi_square_p(steps([n * 2**28 % 2**32 for n in range(500)])) or 0) < 1e-6


def test_p_values_of_random_numbers_are_uniform() -> None:
    random = Random(9)
    found = [chi_square_p([random.randrange(2**32) for _ in range(500)]) or 0 for _ in range(1000)]
    below = sum(p < 0.1 for p in found)
    assert 60 <= below <= 145  # 100 expected, standard deviation 9.5


def test_too_few_say_nothing() -> None:
    assert chi_square_p([1] * 79) is None


def test_steps_go_around() -> None:
    assert steps([2**32 - 1, 3]) == (4,)


def test_what_is_no_chi_square_is_refused() -> None:
    with pytest.raises(ValueError, match="degrees"):
        chi_square_tail(1.0, 0)
    assert chi_square_tail(0.0, 3) == 1.0
