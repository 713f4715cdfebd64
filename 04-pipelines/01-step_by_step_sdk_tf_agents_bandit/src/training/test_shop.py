"""The shop's log is what a training job reads, and its true values are those that its docstring names."""

import numpy as np
import pytest
from src.training.shop import BEST, write

from recbandits.data import data_file
from recbandits.evaluation.off_policy import estimates


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return data_file.load(write(tmp_path_factory.mktemp("shop"), visits=20_000))


def value(shop, wanted):
    """IPS estimate of a policy that shows a tea at random among those that are wanted, bool [n, teas]."""
    return estimates(shop.log, wanted / wanted.sum(axis=1, keepdims=True), names=["IPS"])["IPS"]


def test_the_best_policy_the_best_kind_and_a_random_tea_earn_what_the_docstring_says(shop):
    kinds, seasons = shop.items["kind"].to_numpy(), shop.log.context["season"]
    policies = {
        2.1: kinds == seasons.map(BEST).to_numpy()[:, None],
        1.4: np.broadcast_to(kinds == "white", shop.log.mask.shape),
        0.98: shop.log.mask,
    }
    for truth, wanted in policies.items():
        low, high = value(shop, wanted).interval(level=0.999)
        assert low < truth < high


def test_every_tea_is_a_candidate_and_silence_is_zero_minutes(shop):
    decisions = shop.log
    assert decisions.mask.shape == (20_000, 25)
    assert np.mean(decisions.reward == 0) == pytest.approx(0.3, abs=0.02)
