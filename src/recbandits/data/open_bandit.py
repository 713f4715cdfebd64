"""Open Bandit from a directory, the cache, a wheel or, where none of them has it, a synthetic set of the same shape.

Two policies chose fashion items for the visitors of a shop and logged their propensities (Saito et al. 2020, "Open
Bandit Dataset and Pipeline"). The wheel obp 0.4.1 carries a sample of the logs; it is not part of this project.
"""

import os
import subprocess
import sys
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from recbandits.checks import FINITE, NON_NEGATIVE, POSITIVE_PROBABILITY, Rule, require
from recbandits.data import synthetic_open_bandit as synthetic
from recbandits.data.download import Archive, DownloadError, find_folder

DIRECTORY_VARIABLE = "RECBANDITS_OPEN_BANDIT"
_PIP_SECONDS = 60
_DIGEST = "87dec9caf4283c25ab13036532e0a24566f1c7bdcad1653a8ded43b2f5ef8208"
WHEEL = Archive((), _DIGEST, "obp/dataset/obd", "obp-0.4.1-py3-none-any.whl")
_PIP_DOWNLOAD = (
    "download", "--quiet", "--no-input", "--no-cache-dir", "--retries=0", "--timeout=5", "--no-deps",
    "--only-binary=:all:", "--require-hashes",
)  # fmt: skip
_CATEGORY, _TIME = Rule("a category", pd.notna), Rule("a time", pd.notna)
_WHOLE = Rule("a whole number", lambda values: (values >= 0) & (values % 1 == 0))


class OpenBandit(NamedTuple):
    """Decisions that one policy logged in one campaign, and the items that it chose from.

    An item id is text, the campaign and the number of the item in it: "men-12". There are no user ids.

    Attributes:
      decisions: DataFrame [decisions] in file order; item_id (str), position (int64, 1 to 3), click (int64, 0 or 1),
        propensity (float64, of the item at its position), time (UTC), user_feature_0 to user_feature_3 (categories),
        campaign and policy (str).
      items: DataFrame [items] indexed by item_id; item_feature_0 (float64), item_feature_1 to item_feature_3
        (categories). Both policies of a campaign have the same table.
      affinities: float32 [decisions, items], logged counts of past clicks of the user on each item.
      source: of the tables, in words; every result shows it.
    """

    decisions: pd.DataFrame
    items: pd.DataFrame
    affinities: np.ndarray
    source: str

    def __repr__(self) -> str:
        clicks = self.decisions["click"].sum()
        return f"{self.source}: {len(self.decisions):,} decisions, {len(self.items)} items, {clicks:,} clicks"


def load(
    campaign: str = "men",
    policy: str = "random",
    *,
    directory: str | os.PathLike | None = None,
    cache: str | os.PathLike | None = None,
    offline: bool = False,
    _archive: Archive = WHEEL,
) -> OpenBandit:
    """Load the log of a policy in a campaign, and print one line that names the source.

    Sources are those of `movielens.load`, with the wheel as archive, which comes from the index that pip uses here.

    Args:
      campaign: "men", "women" or "all".
      policy: "random" (uniform), or "bts" (Bernoulli Thompson sampling, whose propensities change as it learns).
      directory: folder with random/men/men.csv, random/men/item_context.csv and so on, of the sample or the full set;
        None is $RECBANDITS_OPEN_BANDIT.
      cache: folder for the wheel; None is $RECBANDITS_CACHE, or ~/.cache/recbandits.
      offline: do not try the web.

    Raises:
      OSError: a file in the directory is missing or cannot be read.
      ValueError: an unknown campaign or policy, or an invalid file; the sentence names file, line and column.
    """
    synthetic.check_log(campaign, policy)
    directory = directory or os.environ.get(DIRECTORY_VARIABLE)
    try:
        folder, origin = find_folder(directory, _archive, cache, offline, _download)
        source = "data in the Open Bandit format" if directory else "Open Bandit sample"
        data = _read(folder, campaign, policy, f"{source} ({origin})")
    except DownloadError as error:
        print(
            f"NO OPEN BANDIT: {error}. A synthetic set stands in for it, and no result below is Open Bandit's. "
            f"For the real one set {DIRECTORY_VARIABLE} to a folder with random/{campaign}/{campaign}.csv."
        )
        data = OpenBandit(*synthetic.generate(campaign, policy), synthetic.SOURCE)
    print(f"DATA: {data}")
    return data


def _has_pip() -> bool:
    """Return whether this environment has pip; uv makes environments without it."""
    return any(metadata.distributions(name="pip"))


def _download(archive: Archive) -> bytes:
    """Download the wheel with pip, which knows the index of this machine and checks the digest."""
    pip = [sys.executable, "-m", "pip"] if _has_pip() else ["pip"]
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder, "requirements.txt")
        requirements.write_text(f"obp==0.4.1 --hash=sha256:{archive.sha256}\n", encoding="utf-8")
        command = [*pip, *_PIP_DOWNLOAD, f"--requirement={requirements}", f"--dest={folder}"]
        try:
            result = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_SECONDS)
            if result.returncode == 0:
                return Path(folder, archive.file).read_bytes()
            errors = [line for line in result.stderr.splitlines() if line.startswith("ERROR: ")]
            reason = errors[0].removeprefix("ERROR: ") if errors else f"exit status {result.returncode}"
        except (OSError, subprocess.TimeoutExpired) as error:
            reason = getattr(error, "strerror", None) or f"no answer in {_PIP_SECONDS} s"
    raise DownloadError(f"pip: {reason.strip().rstrip('.')}")


def _read(root: Path | zipfile.Path, campaign: str, policy: str, source: str) -> OpenBandit:
    """Read the log of a policy, and the table of items from the folder of the policy "random".

    The categories of items have other names in the folder of each policy; the numbers of the items are the same.
    """
    item_file, log_file = root / "random" / campaign / "item_context.csv", root / policy / campaign / f"{campaign}.csv"
    categories = {f"item_feature_{number}": _CATEGORY for number in range(1, 4)}
    items = _read_table(item_file, {"item_id": _WHOLE, "item_feature_0": FINITE, **categories})
    numbers = items.pop("item_id").astype("int64")
    require(numbers.is_unique, f"{item_file}: item_id", "different in every line", numbers.tolist())
    affinities = [f"user-item_affinity_{number}" for number in numbers]
    rules = {
        "item_id": Rule(f"listed in {item_file}", lambda values: values.isin(numbers)),
        "position": Rule("1, 2 or 3", lambda values: values.isin(synthetic.POSITIONS)),
        "click": Rule("0 or 1", lambda values: values.isin([0, 1])),
        "propensity_score": POSITIVE_PROBABILITY,
        "timestamp": _TIME,
        **{f"user_feature_{number}": _CATEGORY for number in range(4)},
        **dict.fromkeys(affinities, NON_NEGATIVE),
    }
    table = _read_table(log_file, rules).astype(dict.fromkeys(["item_id", "position", "click"], "int64"))
    item_id = f"{campaign}-" + table["item_id"].astype("str")
    decisions = table.drop(columns=affinities).assign(item_id=item_id, campaign=campaign, policy=policy)
    decisions = decisions.rename(columns={"propensity_score": "propensity", "timestamp": "time"})
    items = items.set_index(pd.Index(f"{campaign}-" + numbers.astype("str"), name="item_id"))
    return OpenBandit(decisions, items, table[affinities].to_numpy(np.float32), source)


def _read_table(file: Path | zipfile.Path, rules: dict[str, Rule]) -> pd.DataFrame:
    """Read the columns that have rules: categories, times or numbers; refuse the first value against its rule."""
    text = [name for name, rule in rules.items() if rule in (_CATEGORY, _TIME)]
    try:
        with file.open("rb") as stream:
            table = pd.read_csv(stream, dtype=dict.fromkeys(text, "str"), skip_blank_lines=False, index_col=False)
    except ValueError as error:
        raise ValueError(f"{file}: {str(error).strip()}") from error
    require(not table.empty, f"{file}", "a header and at least one line", list(table))
    columns = {}
    for name, rule in rules.items():
        require(name in table, f"{file}: the header", f"complete, with {name}", list(table)[:12])
        values = table[name]
        if rule is _TIME:
            values = pd.to_datetime(values, format="ISO8601", utc=True, errors="coerce")
        elif rule is not _CATEGORY:
            values = pd.to_numeric(values, errors="coerce")
        if not (valid := np.asarray(rule.holds(values))).all():
            row = int(np.argmin(valid))
            raise ValueError(f"{file}, line {row + 2}: {name} must be {rule.expected}, got {table[name].iloc[row]}")
        columns[name] = values.astype("category") if rule is _CATEGORY else values
    return pd.DataFrame(columns)
