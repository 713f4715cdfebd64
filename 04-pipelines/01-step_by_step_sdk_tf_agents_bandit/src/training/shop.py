"""The log of a shop, made up: two tables, and the TOML file that names their columns."""

import numpy as np
import pandas as pd

DATA = """\
[decisions]
file = "visits.csv"
item = "tea"
reward = "minutes"
default_reward = 0.0
propensity = "p"
time = "at"
context = ["season"]

[items]
file = "teas.csv"
id = "tea"

[features]
crosses = [["season", "kind"]]
"""
KINDS = ("green", "black", "white", "herbal", "fruit")
BEST = {"summer": "white", "winter": "black"}


def draw(visits, seed=0):
    """Draw visits, on each of which one of 25 teas was shown at random, and the minutes spent with it.

    A tea of the kind that fits the season holds a visitor for 3 minutes, any other for 1, and on 3 visits in 10 nothing
    is clicked: the best policy earns 2.1 minutes a visit, a fixed tea 1.4, and a random one 0.98.

    Args:
      visits: number of rows.
      seed: of all draws.

    Returns:
      (DataFrame of visits, DataFrame of teas)
    """
    rng = np.random.default_rng(seed)
    teas = pd.DataFrame({"tea": [f"tea-{number:02}" for number in range(1, 26)], "kind": KINDS * 5})
    season, shown = rng.choice(list(BEST), visits), rng.integers(25, size=visits)
    fits = teas["kind"].to_numpy()[shown] == pd.Series(season).map(BEST).to_numpy()
    minutes = np.where(rng.random(visits) < 0.3, np.nan, rng.gamma(2, np.where(fits, 3.0, 1.0) / 2))
    times = pd.date_range("2026-01-01", periods=visits, freq="h", tz="UTC")
    columns = {"at": times, "season": season, "tea": teas["tea"].to_numpy()[shown], "p": 1 / 25, "minutes": minutes}
    return pd.DataFrame(columns), teas


def write(directory, visits=4000, seed=0):
    """Write the tables and the TOML file into a directory, and return the path of the TOML file."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, table in zip(("visits", "teas"), draw(visits, seed), strict=True):
        table.to_csv(directory / f"{name}.csv", index=False)
    file = directory / "data.toml"
    file.write_text(DATA, encoding="utf-8")
    return file
