"""What the loop costs on Google Cloud: list prices, and what follows from them for an hour, a million messages, a run.

The prices are Google's public list prices in US dollars for us-central1 as they were in `SEEN`, without free tiers and
discounts. They are not looked up: before money is spent, read the page in the column `source`.
"""

from typing import NamedTuple

SEEN = "2025-08"
_PAGE = "https://cloud.google.com/{}/pricing"
_MONTH = 730  # hours
_MILLION = 10**6
_TIB = 2**40  # bytes
_BATCH = 2  # machines that a batch prediction may have; they are priced as those that serve
PRICES = {  # name: (US dollars, unit, page)
    "n2-standard-2 serving": (0.1117, "hour", "vertex-ai"),
    "n2-standard-8 training": (0.4467, "hour", "vertex-ai"),
    "e2-standard-4 step": (0.1541, "hour", "vertex-ai"),
    "pipeline run": (0.03, "run", "vertex-ai"),
    "TensorBoard": (10.0, "GiB month", "vertex-ai"),
    "Pub/Sub throughput": (40.0, "TiB", "pubsub"),
    "function request": (0.40, "million", "run"),
    "function processor": (0.000024, "vCPU second", "run"),
    "function memory": (0.0000025, "GiB second", "run"),
    "BigQuery query": (6.25, "TiB", "bigquery"),
    "BigQuery storage": (0.02, "GiB month", "bigquery"),
    "Cloud Storage": (0.02, "GiB month", "storage"),
    "Artifact Registry": (0.10, "GiB month", "artifact-registry"),
    "Cloud Scheduler": (0.10, "job month", "scheduler"),
    "Cloud Build e2-highcpu-8": (0.016, "minute", "build"),
}


class Use(NamedTuple):
    """How much of everything is used; the defaults are those of this project's adapters, or guesses that are marked.

    Attributes:
      versions: deployed at once: the policy that serves, and its canary or control. Each has a machine of its own.
      message: bytes of a decision or a reward; Pub/Sub counts at least 1000 for each request.
      batch: messages that a function merges at once; a guess.
      merge: seconds that this takes; a guess.
      scanned: bytes that BigQuery counts for a batch: two queries of two tables, at least 10 MiB each.
      stored: GiB in BigQuery; a guess.
      files: GiB in the bucket; a guess.
      images: GiB in Artifact Registry; a guess.
      curves: GiB in TensorBoard; a guess.
      schedules: jobs of Cloud Scheduler.
      steps: of a re-training pipeline.
      minutes: that a step's machine is paid for; a guess.
      build: minutes that building an image takes; a guess.
    """

    versions: int = 2
    message: int = 1000
    batch: int = 100
    merge: float = 6.0
    scanned: int = 4 * 10 * 2**20
    stored: float = 10.0
    files: float = 10.0
    images: float = 6.0
    curves: float = 0.1
    schedules: int = 2
    steps: int = 4
    minutes: float = 3.0
    build: float = 15.0


def prices():
    """The price list: pandas.DataFrame by name, with `dollars`, `unit`, `source`, `seen`."""
    import pandas as pd

    rows = {name: (dollars, unit, _PAGE.format(page), SEEN) for name, (dollars, unit, page) in PRICES.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["dollars", "unit", "source", "seen"])


def costs(use=None):
    """What each piece of the loop costs.

    Args:
      use: `Use`; None for its defaults.

    Returns:
      pandas.DataFrame by piece, the dearest idle piece first: `per_hour` (US dollars while nobody uses it),
      `per_million` (messages, each a decision or a reward), `per_run` (of the re-training pipeline, or of what is said
      in the name), `idle` (whether it is billed when nobody uses it), `stopped_by`, `source`, `seen`.
    """
    import pandas as pd

    columns = ["per_hour", "per_million", "per_run", "stopped_by", "source"]
    table = pd.DataFrame.from_dict(_rows(use or Use()), orient="index", columns=columns)
    table.insert(3, "idle", table["per_hour"] > 0)
    table["source"] = table["source"].map(_PAGE.format)
    table["seen"] = SEEN
    return table.sort_values("per_hour", ascending=False, kind="stable")


def monthly(use=None, messages=_MILLION, runs=30, hours=_MONTH):
    """US dollars of a month by piece, the dearest first; training jobs, batch predictions and builds are not in it.

    Args:
      use: `Use`; None for its defaults.
      messages: decisions and rewards in the month.
      runs: of the re-training pipeline.
      hours: that everything is there.

    Returns:
      pandas.Series
    """
    table = costs(use).drop(["training job (an hour)", "batch prediction (an hour)", "image build"])
    spent = hours * table["per_hour"] + messages / _MILLION * table["per_million"] + runs * table["per_run"]
    return spent.rename("dollars").sort_values(ascending=False, kind="stable")


def _rows(use):
    """Dict from piece to (per hour, per million, per run, how it is stopped, page)."""
    batches = _MILLION / use.batch
    working = batches * use.merge * (_price("function processor") + _price("function memory"))  # 1 vCPU and 1 GiB
    carried = 2 * _MILLION * max(use.message, 1000)  # bytes: published, and delivered to the function
    run = _price("pipeline run") + use.steps * use.minutes / 60 * _price("e2-standard-4 step")
    answering = _BATCH * _price("n2-standard-2 serving")
    jobs = _stored(use.schedules, "Cloud Scheduler")
    return {
        "endpoint": (use.versions * _price("n2-standard-2 serving"), 0, 0, "undeploy every version", "vertex-ai"),
        "Pub/Sub": (0, carried / _TIB * _price("Pub/Sub throughput"), 0, "nothing to stop", "pubsub"),
        "functions": (0, _price("function request") + working, 0, "nothing runs between events", "run"),
        "BigQuery queries": (0, batches * use.scanned / _TIB * _price("BigQuery query"), 0, "no events", "bigquery"),
        "BigQuery storage": (_stored(use.stored, "BigQuery storage"), 0, 0, "expiry, or delete the tables", "bigquery"),
        "bucket": (_stored(use.files, "Cloud Storage"), 0, 0, "delete the files", "storage"),
        "images": (_stored(use.images, "Artifact Registry"), 0, 0, "delete the images", "artifact-registry"),
        "TensorBoard": (_stored(use.curves, "TensorBoard"), 0, 0, "delete the TensorBoard", "vertex-ai"),
        "schedules": (jobs, 0, 0, "delete the jobs, paused ones cost", "scheduler"),
        "pipeline": (0, 0, run, "pause its schedule, it goes on alone", "vertex-ai"),
        "training job (an hour)": (0, 0, _price("n2-standard-8 training"), "it ends by itself", "vertex-ai"),
        "batch prediction (an hour)": (0, 0, answering, "it ends by itself", "vertex-ai"),
        "image build": (0, 0, use.build * _price("Cloud Build e2-highcpu-8"), "it ends by itself", "build"),
    }


def _price(name):
    return PRICES[name][0]


def _stored(amount, name):
    """US dollars per hour of what is priced by the month."""
    return amount * _price(name) / _MONTH
