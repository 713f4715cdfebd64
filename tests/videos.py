"""A made-up video service whose expected rewards are known: three CSV files, as a team would keep them."""

import numpy as np
import pandas as pd

GENRES, PLANS = ("drama", "news", "kids"), ("free", "premium")
SECONDS = {  # expected seconds watched, by plan and genre
    ("free", "drama"): 40.0,
    ("free", "news"): 120.0,
    ("free", "kids"): 60.0,
    ("premium", "drama"): 180.0,
    ("premium", "news"): 50.0,
    ("premium", "kids"): 70.0,
}
DATA_TOML = """
[decisions]
file = "decisions.csv"
item = "shown"
reward = "seconds"
default_reward = 0.0
reward_range = [0, 3600]
propensity = "p"
time = "at"
user = "user"
candidates = "candidates"
context = ["device", "hour"]
event_id = "request"

[items]
file = "items.csv"
id = "video"
title = "name"

[users]
file = "users.csv"
id = "user"

[features]
crosses = [["plan", "genre"]]
"""


def make_tables(n=4000, seed=0):
    """Draw decisions, items and users; ids are text, and every fifth decision is for a user without an account.

    Returns:
      (decisions, items, users, expected rewards of all candidates as a list of arrays)
    """
    rng = np.random.default_rng(seed)
    items = pd.DataFrame({"video": [f"v-{9_000_000_000_000_000_000 + number}" for number in range(12)]})
    items["genre"] = [GENRES[number % 3] for number in range(12)]
    items["minutes"] = rng.integers(2, 90, 12)
    items["name"] = [f"Video {number}" for number in range(12)]
    users = pd.DataFrame({"user": [f"u{number:03}" for number in range(80)], "plan": rng.choice(PLANS, 80)})
    rows, expected = [], []
    for number in range(n):
        user = rng.integers(80)
        anonymous = rng.random() < 0.2
        shown = rng.choice(12, size=rng.integers(4, 8), replace=False)
        # people without an account behave like those with the free plan
        plan = "free" if anonymous else users["plan"][user]
        mean = np.array([SECONDS[plan, items["genre"][item]] for item in shown])
        weight = 1.0 + (shown % 4)
        chance = weight / weight.sum()
        action = rng.choice(len(shown), p=chance)
        seconds = rng.gamma(4.0, mean[action] / 4.0)
        rows.append(
            {
                "request": f"r{number}",
                "at": (pd.Timestamp("2026-03-01T08:00:00") + pd.Timedelta(seconds=37 * number)).isoformat(),
                "user": None if anonymous else users["user"][user],
                "device": rng.choice(["tv", "phone"]),
                "hour": int(rng.integers(24)),
                "candidates": "|".join(items["video"][shown]),
                "shown": items["video"][shown[action]],
                "p": chance[action],
                "seconds": np.nan if seconds < 5 else round(seconds, 1),
            }
        )
        expected.append(mean)
    return pd.DataFrame(rows), items, users, expected


def write_tables(folder, n=4000, seed=0):
    """Write decisions.csv, items.csv, users.csv and data.toml; return the expected rewards."""
    *tables, expected = make_tables(n, seed)
    for name, table in zip(("decisions", "items", "users"), tables, strict=True):
        table.to_csv(folder / f"{name}.csv", index=False)
    (folder / "data.toml").write_text(DATA_TOML)
    return expected
