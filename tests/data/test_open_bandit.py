"""Sources of Open Bandit, values that are refused, its synthetic set, and real clicks judged by the other log."""

import hashlib
import os
import shutil
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from recbandits.data import open_bandit, synthetic_open_bandit
from recbandits.data.open_bandit import OpenBandit, load
from recbandits.data.synthetic_open_bandit import CAMPAIGNS, CLICK_RATE, ITEMS, POLICIES, click_probability, generate
from recbandits.evaluation import estimators

FILE, FOLDER = open_bandit.WHEEL.file, f"{open_bandit.WHEEL.folder}/"
LOGS = [(campaign, policy) for campaign in CAMPAIGNS for policy in POLICIES]
needs_pip = pytest.mark.skipif(not (open_bandit._has_pip() or shutil.which("pip")), reason="needs pip")
each_log = pytest.mark.parametrize(("campaign", "policy"), LOGS)


@pytest.fixture(autouse=True)
def _environment(monkeypatch, tmp_path):
    """No directory, a cache and a temporary folder of the test's own, and a pip that finds nothing."""
    for name in ("empty", "temporary"):
        (tmp_path / name).mkdir()
    monkeypatch.delenv("RECBANDITS_OPEN_BANDIT", raising=False)
    monkeypatch.setenv("RECBANDITS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "empty"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Two synthetic logs in files of the format; the categories of items are named anew for each policy."""
    directory = tmp_path_factory.mktemp("logs")
    for policy in POLICIES:
        decisions, items, affinities = generate("men", policy, seed=1)
        folder = directory / policy / "men"
        folder.mkdir(parents=True)
        names = {name: items[name].astype("str") + f" in {policy}" for name in items if name != "item_feature_0"}
        items.assign(**names).reset_index().assign(item_id=range(34)).to_csv(folder / "item_context.csv")
        columns = {"propensity": "propensity_score", "time": "timestamp"}
        table = decisions.drop(columns=["campaign", "policy"]).rename(columns=columns)
        table["item_id"] = table["item_id"].str.removeprefix("men-")
        counts = pd.DataFrame(affinities, columns=[f"user-item_affinity_{number}" for number in range(34)])
        table.join(counts).to_csv(folder / "men.csv")
    return directory


@pytest.fixture(scope="module")
def wheel(directory, tmp_path_factory):
    """A folder with a wheel that pip accepts and that carries these logs."""
    folder = tmp_path_factory.mktemp("index")
    with zipfile.ZipFile(folder / FILE, "w", zipfile.ZIP_DEFLATED) as target:
        for file in directory.rglob("*.csv"):
            target.write(file, FOLDER + file.relative_to(directory).as_posix())
        target.writestr("obp-0.4.1.dist-info/METADATA", "Metadata-Version: 2.1\nName: obp\nVersion: 0.4.1\n")
        target.writestr("obp-0.4.1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    return folder / FILE


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """The real logs by (campaign, policy), and the folder of their files; skipped where they are not at hand."""
    directory, cache = os.environ.get("RECBANDITS_OPEN_BANDIT"), tmp_path_factory.mktemp("open-bandit-cache")
    first = load(cache=cache)
    if first.source == synthetic_open_bandit.SOURCE:
        pytest.skip("needs the Open Bandit sample: set RECBANDITS_OPEN_BANDIT to its directory, or allow a download")
    logs = {(campaign, policy): load(campaign, policy, cache=cache) for campaign, policy in LOGS}
    return logs, Path(directory) if directory else zipfile.Path(cache / FILE, FOLDER)


def archive_of(wheel):
    return open_bandit.WHEEL._replace(sha256=hashlib.sha256(wheel.read_bytes()).hexdigest())


def store(content, folder):
    folder.mkdir()
    (folder / FILE).write_bytes(content)
    return folder / FILE


def edit(directory, target, name, change):
    """Copy the logs and change one file of the copy as a table of text."""
    shutil.copytree(directory, target)
    change(pd.read_csv(target / name, dtype=str)).to_csv(target / name, index=False)
    return target


def assert_equal(data, decisions, items, affinities):
    pd.testing.assert_frame_equal(data.decisions, decisions)
    pd.testing.assert_frame_equal(data.items, items)
    np.testing.assert_array_equal(data.affinities, affinities)
    assert data.affinities.dtype == np.float32


def test_a_directory_is_read_as_it_was_written(directory, capsys):
    data = load("men", "random", directory=directory)
    decisions, items, affinities = generate("men", "random", seed=1)
    names = {name: (items[name].astype("str") + " in random").astype("category") for name in items if name[-1] != "0"}
    assert_equal(data, decisions, items.assign(**names), affinities)
    assert data.source == "data in the Open Bandit format (directory)"
    clicks = decisions["click"].sum()
    assert capsys.readouterr().out == f"DATA: {data.source}: 10,000 decisions, 34 items, {clicks} clicks\n"


def test_both_policies_have_one_table_of_items_where_their_files_name_categories_differently(directory):
    random, bts = (load("men", policy, directory=directory) for policy in POLICIES)
    pd.testing.assert_frame_equal(random.items, bts.items)
    assert set(bts.decisions["item_id"]) <= set(random.items.index)


def test_a_directory_as_an_argument_is_used_before_the_variable_and_that_before_the_cache(
    directory, monkeypatch, tmp_path
):
    store(b"damaged", tmp_path / "cache")
    monkeypatch.setenv("RECBANDITS_OPEN_BANDIT", str(directory))
    assert load().source.endswith("(directory)")
    monkeypatch.setenv("RECBANDITS_OPEN_BANDIT", str(tmp_path / "missing"))
    assert load(directory=directory).source.endswith("(directory)")
    with pytest.raises(FileNotFoundError, match=r"missing/random/men/item_context.csv"):
        load()


def test_the_cache_is_used_before_the_web(directory, wheel, tmp_path):
    store(wheel.read_bytes(), tmp_path / "other")
    data = load(policy="bts", cache=tmp_path / "other", _archive=archive_of(wheel))
    assert data.source == "Open Bandit sample (cache)"
    assert_equal(data, *load(policy="bts", directory=directory)[:3])


@needs_pip
def test_pip_downloads_the_wheel_from_the_index_that_it_is_configured_for(wheel, monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    assert load(_archive=archive_of(wheel)).source == "Open Bandit sample (download)"
    assert [file.name for file in (tmp_path / "cache").iterdir()] == [FILE]
    assert (tmp_path / "cache" / FILE).read_bytes() == wheel.read_bytes()
    assert list((tmp_path / "temporary").iterdir()) == []


def test_without_pip_the_notice_says_so(wheel, monkeypatch, capsys):
    monkeypatch.setattr(open_bandit, "_has_pip", lambda: False)
    monkeypatch.setenv("PATH", "")
    assert load(_archive=archive_of(wheel)).source == synthetic_open_bandit.SOURCE
    assert "NO OPEN BANDIT: pip: No such file or directory. " in capsys.readouterr().out


def test_a_pip_that_does_not_answer_is_stopped_and_the_notice_says_so(wheel, monkeypatch, tmp_path, capsys):
    (tmp_path / "pip").write_text("#!/bin/sh\nexec /bin/sleep 30\n")
    (tmp_path / "pip").chmod(0o755)
    monkeypatch.setattr(open_bandit, "_has_pip", lambda: False)
    monkeypatch.setattr(open_bandit, "_PIP_SECONDS", 0.2)
    monkeypatch.setenv("PATH", str(tmp_path))
    start = time.monotonic()
    assert load(_archive=archive_of(wheel)).source == synthetic_open_bandit.SOURCE
    assert time.monotonic() - start < 10
    assert "NO OPEN BANDIT: pip: no answer in 0.2 s. " in capsys.readouterr().out


@needs_pip
def test_a_damaged_wheel_is_refused_by_its_digest_and_nothing_is_left_behind(wheel, monkeypatch, tmp_path, capsys):
    """The index of pip has a wheel that is whole, and not the one that is expected."""
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    data = load(_archive=open_bandit.WHEEL._replace(sha256="0" * 64))
    assert data.source == "synthetic, shaped like Open Bandit"
    assert "NO OPEN BANDIT: pip: THESE PACKAGES DO NOT MATCH THE HASHES" in capsys.readouterr().out
    assert not (tmp_path / "cache").exists()
    assert list((tmp_path / "temporary").iterdir()) == []


def test_an_invalid_line_in_a_wheel_is_named(directory, tmp_path):
    broken = edit(directory, tmp_path / "broken", "random/men/men.csv", lambda table: table.assign(click="2"))
    file = store(b"", tmp_path / "cache")
    with zipfile.ZipFile(file, "w") as target:
        for name in ("men.csv", "item_context.csv"):
            target.write(broken / "random" / "men" / name, f"{FOLDER}random/men/{name}")
    with pytest.raises(ValueError, match=f"^{FILE}/{FOLDER}random/men/men.csv, line 2: click must be 0 or 1, got 2$"):
        load(_archive=archive_of(file))


def test_offline_returns_the_synthetic_set_with_a_notice(tmp_path, capsys):
    data = load("women", "bts", offline=True)
    assert_equal(data, *generate("women", "bts"))
    notice, line = capsys.readouterr().out.splitlines()
    assert notice.startswith("NO OPEN BANDIT: offline=True. A synthetic set stands in for it")
    assert line.startswith("DATA: synthetic, shaped like Open Bandit: 10,000 decisions, 46 items, ")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(("campaign", "policy"), [("kids", "random"), ("men", "greedy")])
def test_an_unknown_campaign_or_policy_is_refused(campaign, policy):
    with pytest.raises(ValueError, match=r"(campaign|policy) must be one of .*, got ('kids'|'greedy')"):
        load(campaign, policy, offline=True)
    with pytest.raises(ValueError, match=r"(campaign|policy) must be one of"):
        generate(campaign, policy)


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("item_id", "34", r"item_id must be listed in .*/random/men/item_context.csv, got 34"),
        ("position", "4", "position must be 1, 2 or 3, got 4"),
        ("click", "0.5", "click must be 0 or 1, got 0.5"),
        ("propensity_score", "0", r"propensity_score must be in \(0, 1\], got 0.0"),
        ("propensity_score", "often", r"propensity_score must be in \(0, 1\], got often"),
        ("timestamp", "yesterday", "timestamp must be a time, got yesterday"),
        ("user_feature_3", "", "user_feature_3 must be a category, got nan"),
        ("user-item_affinity_33", "inf", "user-item_affinity_33 must be 0 or more and finite, got inf"),
    ],
)
def test_a_value_of_a_log_is_refused_by_file_line_and_column(directory, tmp_path, column, value, reason):
    """The 8th decision is on line 9, below the header."""

    def change(table):
        table.loc[7, column] = value
        return table

    broken = edit(directory, tmp_path / "broken", "bts/men/men.csv", change)
    with pytest.raises(ValueError, match=f"^{broken}/bts/men/men.csv, line 9: {reason}$"):
        load(policy="bts", directory=broken)


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("item_id", "2.5", "line 4: item_id must be a whole number, got 2.5"),
        ("item_id", "1", r"item_id must be different in every line, got \[0, 1, 1, 3"),
        ("item_feature_0", "", "line 4: item_feature_0 must be finite, got nan"),
        ("item_feature_2", "", "line 4: item_feature_2 must be a category, got nan"),
    ],
)
def test_a_value_of_the_table_of_items_is_refused_by_file_line_and_column(directory, tmp_path, column, value, reason):
    def change(table):
        table.loc[2, column] = value
        return table

    broken = edit(directory, tmp_path / "broken", "random/men/item_context.csv", change)
    with pytest.raises(ValueError, match=rf"^{broken}/random/men/item_context.csv[,:] {reason}"):
        load(policy="bts", directory=broken)


@pytest.mark.parametrize("column", ["item_id", "user-item_affinity_7"])
def test_a_missing_column_is_named(directory, tmp_path, column):
    broken = edit(directory, tmp_path / "broken", "random/men/men.csv", lambda table: table.drop(columns=column))
    with pytest.raises(ValueError, match=rf"random/men/men.csv: the header must be complete, with {column}, got \["):
        load(directory=broken)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "No columns to parse from file"),
        (b",timestamp,item_id\n", "must be a header and at least one line"),
        (b",timestamp,item_id\n\xff,1,2\n", "can't decode byte"),
        (b",timestamp,item_id\n0,1\n1,2,3,4,5,6\n", "Expected 3 fields in line 3, saw 6$"),
    ],
)
def test_a_file_that_is_no_table_is_refused_by_name(directory, tmp_path, content, reason):
    broken = shutil.copytree(directory, tmp_path / "broken")
    (broken / "random/men/men.csv").write_bytes(content)
    with pytest.raises(ValueError, match=f"^{broken}/random/men/men.csv:? .*{reason}"):
        load(directory=broken)


def test_a_blank_line_is_refused_and_lines_are_counted_as_in_the_file(directory, tmp_path):
    broken = shutil.copytree(directory, tmp_path / "broken")
    file = broken / "random/men/men.csv"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:5], "", *lines[5:]]) + "\n")
    with pytest.raises(ValueError, match=r"men.csv, line 6: item_id must be listed in"):
        load(directory=broken)


@each_log
def test_the_synthetic_set_has_the_shape_of_the_sample(sample, campaign, policy):
    real, made = sample[0][campaign, policy], OpenBandit(*generate(campaign, policy), "synthetic")
    for name in ("decisions", "items", "affinities"):
        assert getattr(made, name).shape == getattr(real, name).shape
    for name in ("decisions", "items"):
        tables = getattr(made, name), getattr(real, name)
        assert tables[0].dtypes.astype(str).to_dict() == tables[1].dtypes.astype(str).to_dict()
        assert list(tables[0]) == list(tables[1])
    assert made.items.index.equals(real.items.index)
    assert 0.4 < made.affinities.mean() / real.affinities.mean() < 2.5
    for number in range(4):
        shares = [data.decisions[f"user_feature_{number}"].value_counts(normalize=True) for data in (made, real)]
        np.testing.assert_allclose(*(share.to_numpy()[:3] for share in shares), atol=0.15)


@each_log
def test_the_propensities_of_the_synthetic_set_are_right(campaign, policy):
    """mean(1 / (K p)) is 1 up to its standard error, and items are chosen as often as their propensities say."""
    decisions, items, _ = generate(campaign, policy)
    weight = 1 / (len(items) * decisions["propensity"])
    assert abs(weight.mean() - 1) <= 3 * weight.std() / 100 + 1e-9
    by_item = decisions.groupby("item_id")["propensity"]
    assert (by_item.nunique() == 1).all()
    probability, count = by_item.first(), decisions["item_id"].value_counts()
    assert len(probability) == ITEMS[campaign]
    assert probability.sum() == pytest.approx(1)
    assert (probability.max() > 3 * probability.min()) == (policy == "bts")
    assert stats.chisquare(count[probability.index], probability * 10_000).pvalue > 0.001


@pytest.mark.parametrize("campaign", CAMPAIGNS)
def test_the_synthetic_clicks_follow_the_known_model(campaign):
    """Counts of clicks are within 4 standard deviations of the sums of their probabilities, in all and by position."""
    truth = click_probability(campaign)
    assert truth.shape == (9, ITEMS[campaign], 3)
    assert 0 < truth.min() < truth.max() < 0.1
    for policy in POLICIES:
        decisions, items, _ = generate(campaign, policy)
        level = decisions["user_feature_2"].str.removeprefix("level ").astype(int)
        p = truth[level, items.index.get_indexer(decisions["item_id"]), decisions["position"] - 1]
        assert p.mean() == pytest.approx(0.005 if policy == "random" else 0.0065, rel=0.12)
        for rows in (slice(None), *(decisions["position"].to_numpy() == position for position in (1, 2, 3))):
            clicks = decisions["click"].to_numpy()[rows].sum()
            assert abs(clicks - p[rows].sum()) <= 4 * p[rows].sum() ** 0.5


def test_the_log_of_the_synthetic_bts_gives_the_known_value_of_the_uniform_policy():
    """The value is CLICK_RATE for every seed; IPS is unbiased, so the mean of 40 logs is near it."""
    values = []
    for seed in range(40):
        decisions, items, _ = generate("men", "bts", seed)
        uniform = np.full(len(decisions), 1 / len(items))
        values.append(estimators.ips(decisions["click"], decisions["propensity"], uniform).value)
    error = np.std(values, ddof=1) / 40**0.5
    assert error < 0.05 * CLICK_RATE
    assert abs(np.mean(values) - CLICK_RATE) < 3 * error


def test_the_same_seed_gives_the_same_synthetic_set_and_policies_share_their_items():
    first, again, other, bts = generate(), generate(), generate(seed=7), generate(policy="bts")
    assert_equal(OpenBandit(*first, ""), *again)
    assert not first[0]["item_id"].equals(other[0]["item_id"])
    pd.testing.assert_frame_equal(first[1], bts[1])
    assert not first[0]["user_feature_2"].equals(bts[0]["user_feature_2"])
    assert first[0]["time"].is_monotonic_increasing


@each_log
def test_the_sample_is_as_published(sample, campaign, policy):
    data = sample[0][campaign, policy]
    assert 38 <= data.decisions["click"].sum() <= 69
    assert set(data.decisions["campaign"]) == {campaign}
    assert set(data.decisions["policy"]) == {policy}
    assert data.decisions["time"].is_monotonic_increasing
    if policy == "random":
        np.testing.assert_allclose(data.decisions["propensity"], 1 / ITEMS[campaign])


@pytest.mark.parametrize("campaign", CAMPAIGNS)
def test_the_files_of_the_sample_number_items_alike_and_name_their_categories_differently(sample, campaign):
    """One table of items needs the same numbers, first features and groups; no category name is in two folders."""
    logs, root = sample
    tables = []
    for policy in POLICIES:
        with (root / policy / campaign / "item_context.csv").open() as file:
            tables.append(pd.read_csv(file))
    random, bts = tables
    pd.testing.assert_frame_equal(random[["item_id", "item_feature_0"]], bts[["item_id", "item_feature_0"]])
    for number in range(1, 4):
        names = [table[f"item_feature_{number}"] for table in tables]
        assert not set(names[0]) & set(names[1])
        np.testing.assert_array_equal(pd.factorize(names[0])[0], pd.factorize(names[1])[0])
    pd.testing.assert_frame_equal(*(logs[campaign, policy].items for policy in POLICIES))


@pytest.mark.parametrize("campaign", CAMPAIGNS)
@pytest.mark.parametrize("estimator", [estimators.ips, estimators.snips])
def test_the_value_of_a_policy_from_the_log_of_the_other_agrees_with_its_own_mean(sample, campaign, estimator):
    """Within 1.96 standard errors of the difference.

    The probabilities of bts change in time; its frequencies of items at a position are their means over the log.
    """
    random, bts = (sample[0][campaign, policy].decisions for policy in POLICIES)
    frequency = bts.groupby("position")["item_id"].value_counts(normalize=True)
    shown = pd.MultiIndex.from_frame(random[["position", "item_id"]])
    targets = {
        "random": (random, bts, np.full(len(bts), 1 / ITEMS[campaign])),
        "bts": (bts, random, frequency.reindex(shown, fill_value=0).to_numpy()),
    }
    for own, log, target in targets.values():
        estimate = estimator(log["click"], log["propensity"], target)
        error = np.hypot(estimate.influence.std() / len(log) ** 0.5, own["click"].std() / len(own) ** 0.5)
        assert abs(estimate.value - own["click"].mean()) < 1.96 * error
