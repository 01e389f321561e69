"""A whole run keeps to its budget: what comes after sampling is cut to what is left."""

import pytest

from mtbkd.app.run.allowance import After, Allowance, choose_baselines, choose_folds
from mtbkd.app.run.stages import sampling_seconds
from mtbkd.distillation.shares import shortened, was_decided
from mtbkd.inference.settings import SamplerSettings

AFTER = After(
    judging=10.0,
    modes=0.4,
    chains=lambda length: 1.0 + 3.0 * length,
    baselines={"all": 10.0, "fast": 4.0, "none": 0.0},
)


def allowance(out, left, seconds=60.0):
    """One whose clock has so many seconds left."""
    return Allowance(seconds, 1000.0, out, lambda: 1000.0 + seconds - left)


@pytest.mark.parametrize(
    ("left", "length", "folds"),
    [
        (36.1, 1.0, 5),
        (35.9, 0.5, 5),
        (28.4, 0.2, 5),
        (23.9, 0.2, 2),
        (17.9, 0.1, 2),
        (-5.0, 0.1, 2),
    ],
)
def test_students_without_some_labels_take_what_there_is_time_for(tmp_path, left, length, folds):
    choose_folds("all", AFTER, allowance(tmp_path, left))
    choose_folds("all", AFTER, allowance(tmp_path, 50.0))  # after a kill
    assert was_decided(tmp_path, "cross_fit", None) == [length, folds]
    sampler = SamplerSettings(burn_in=50, draws=20, thinning=10)
    short = shortened(sampler, length)
    assert (short.burn_in, short.thinning) == (round(50 * length), round(10 * length))
    assert short.draws == 20


def test_without_baselines_there_is_more_time(tmp_path):
    choose_folds("none", AFTER, allowance(tmp_path, 32.1))
    assert was_decided(tmp_path, "cross_fit", None) == [1.0, 5]


@pytest.mark.parametrize(
    ("asked", "left", "found"),
    [
        ("all", 20.0, "all"),
        ("all", 19.0, "fast"),
        ("all", 13.0, "fast"),
        ("all", -13.0, "fast"),
        ("fast", 50.0, "fast"),
        ("none", 50.0, "none"),
    ],
)
@pytest.mark.filterwarnings("ignore:The strongest")
def test_baselines_are_fewer_where_time_is_short(tmp_path, asked, left, found):
    choose_baselines(asked, AFTER, allowance(tmp_path, left))
    assert was_decided(tmp_path, "baselines", "?") == found
    choose_baselines(asked, AFTER, allowance(tmp_path, 50.0))
    assert was_decided(tmp_path, "baselines", "?") == found


def test_fewer_baselines_are_told(tmp_path):
    with pytest.warns(UserWarning, match="The strongest baseline is trained alone"):
        choose_baselines("all", AFTER, allowance(tmp_path, 15.0))


def test_what_was_spent_before_sampling_is_not_sampled(tmp_path):
    class Config:
        seconds = 100.0

    assert sampling_seconds(Config) == pytest.approx(45.0)
    assert sampling_seconds(Config, 20.0) == pytest.approx(36.0)
    assert sampling_seconds(Config, 500.0) == pytest.approx(11.25)
