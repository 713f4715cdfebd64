"""The benchmark of accelerators compares the devices of one machine, where there are two."""

from recbandits.tf import tf

import pytest

from benchmarks import accelerator


@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="there is a GPU")
def test_nothing_is_measured_without_a_gpu():
    assert accelerator.measure(None) == {}


def test_a_row_has_the_speed_of_both_devices_their_ratio_by_round_and_shares():
    """Ratios of the rounds: 10, 20 and 5; medians of the speeds: 100 and 10, of the shares: 2 % and 40 %."""
    rounds = [
        {"GPU": {"a case": [100.0, 0.02]}, "CPU": {"a case": [10.0, 0.4]}},
        {"GPU": {"a case": [200.0, 0.03]}, "CPU": {"a case": [10.0, 0.4]}},
        {"GPU": {"a case": [60.0, 0.01]}, "CPU": {"a case": [12.0, 0.5]}},
    ]
    (row,) = accelerator.tabulate(rounds).to_dict("records")
    assert row == {
        "": "a case",
        "GPU": "100/s",
        "CPU": "10/s",
        "ratio": "10x (5 to 20)",
        "share of the GPU's bound": "2 %",
        "share of the CPU's bound": "40 %",
    }
