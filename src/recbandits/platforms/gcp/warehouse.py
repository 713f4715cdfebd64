"""The warehouse on Google Cloud: tables of BigQuery, by day and clustered by event."""

import io
import os
import threading
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from google.auth.credentials import AnonymousCredentials

from recbandits.checks import require
from recbandits.config import Config
from recbandits.platforms import warehouse_sql as sql
from recbandits.platforms.gcp.cloud import explained, have
from recbandits.platforms.warehouse import Warehouse, digest_of
from recbandits.records import to_table

_EMULATOR = "BIGQUERY_EMULATOR_HOST"  # address of an emulator, such as http://localhost:9050; it needs no credentials
_STAGING_LIFE = timedelta(hours=1)  # of the table that a batch is loaded into, if its process is killed
_TYPES = {datetime: "TIMESTAMP", float: "FLOAT64", bool: "BOOL", int: "INT64", str: "STRING"}  # a bool is an int


class BigQueryWarehouse(Warehouse):
    """See `Warehouse`. A batch is loaded into a table of its own, which costs nothing, and merged from there.

    Loading and merging takes seconds, and BigQuery lets only a few merge into one table at a time: within a process
    records that are written meanwhile are in the next batch. The dataset of the `Config` must exist.
    """

    def __init__(self, config: Config):
        self._config, self._dataset = config, f"{config.project}.{config.dataset}"
        self._writes = GroupedWrites(self._insert)

    @cached_property
    def _client(self):
        from google.cloud import bigquery

        return bigquery.Client(self._config.project, AnonymousCredentials() if os.environ.get(_EMULATOR) else None)

    def create(self, expiry: float | None = None) -> None:
        """See `Warehouse.create`.

        Args:
          expiry: days, positive, after which BigQuery forgets decisions, rewards and quarantined messages; verdicts
            stay. Given, it holds for tables that are there already, too. None leaves those as they are, and tables that
            are made now keep everything.

        Raises:
          ValueError: days that are not positive.
        """
        from google.cloud import bigquery

        require(expiry is None or expiry > 0, "expiry", "a positive number of days", expiry)
        for table in sql.BY_NAME.values():
            days = None if table.name == "verdicts" else expiry
            life = None if days is None else int(timedelta(days=days) / timedelta(milliseconds=1))
            definition = bigquery.Table(f"{self._dataset}.{table.name}", table.schema)
            definition.time_partitioning = bigquery.TimePartitioning(field="time", expiration_ms=life)
            definition.clustering_fields = [table.key[0]]
            existing = self._have(definition)
            if expiry is not None and existing.time_partitioning != definition.time_partitioning:
                existing.time_partitioning = definition.time_partitioning
                with explained(f"table {definition.reference}"):
                    self._client.update_table(existing, ["time_partitioning"])
        view = bigquery.Table(f"{self._dataset}.decisions")
        view.view_query = sql.VIEW.format(dataset=f"`{self._config.project}`.{self._config.dataset}.")
        self._have(view)

    def _have(self, definition):
        definition.labels = self._config.labels
        with explained(f"table {definition.reference}"):
            find = partial(self._client.get_table, definition.reference)
            return have(find, partial(self._client.create_table, definition, retry=None))

    def query(self, text: str, parameters: dict | None = None) -> pa.Table:
        """See `Warehouse.query`."""
        from google.cloud import bigquery

        values = [_parameter(name, value) for name, value in (parameters or {}).items() if f"@{name}" in text]
        settings = {"default_dataset": self._dataset, "query_parameters": values, "labels": self._config.labels}
        with explained(f"dataset {self._dataset}"):
            job = self._client.query(text, job_config=bigquery.QueryJobConfig(**settings))
            return job.result().to_arrow(create_bqstorage_client=False)

    def _insert(self, batches):
        """Add tables of rows by name, each for itself, unless the rows are there; set of the digests that are new."""
        return {digest for name, batch in batches.items() for digest in self._insert_one(sql.BY_NAME[name], batch)}

    def _insert_one(self, table, batch):
        staging, times = f"batch_of_{table.name}_{uuid.uuid4().hex}", pc.min_max(batch["time"]).as_py()
        bounds = {"first": times["min"], "last": times["max"]}
        with explained(f"table {self._dataset}.{table.name}"):
            try:
                self._load(table, staging, _distinct(table, batch))
                new = self.query(sql.missing(table, staging), bounds)["digest"].to_pylist()
                if new:
                    self.query(sql.merge(table, staging), bounds)
                return new
            finally:
                self._client.delete_table(f"{self._dataset}.{staging}", not_found_ok=True)

    def _load(self, table, staging, batch):
        from google.cloud import bigquery

        destination = bigquery.Table(f"{self._dataset}.{staging}", table.schema)
        destination.expires, destination.labels = datetime.now(UTC) + _STAGING_LIFE, self._config.labels
        self._client.create_table(destination, exists_ok=True)  # as after an answer that was lost
        lists = bigquery.ParquetOptions.from_api_repr({"enableListInference": True})
        settings = bigquery.LoadJobConfig(
            source_format="PARQUET", parquet_options=lists, schema=table.schema, labels=self._config.labels
        )
        file = io.BytesIO()
        pq.write_table(batch, file)
        self._client.load_table_from_file(file, destination.reference, rewind=True, job_config=settings).result()

    def _merge(self, groups):
        return self._writes.write({table.name: _batch(records) for table, records in groups.items()})

    def _delete(self, statements, parameters):
        self.query(";\n".join(("BEGIN TRANSACTION", *statements, "COMMIT TRANSACTION")), parameters)


class GroupedWrites:
    """Threads that write at the same time write together: a batch costs as much for hundreds of rows as for one.

    `insert` writes tables of rows, a dict by name, and returns the set of the digests that are new.
    """

    def __init__(self, insert: Callable[[dict[str, pa.Table]], set[str]]):
        self._insert, self._turn = insert, threading.Lock()
        self._waiting: deque[tuple[Mapping[str, pa.Table], Future[int]]] = deque()

    def write(self, batches: Mapping[str, pa.Table]) -> int:
        """Write what `insert` takes; gives how many of the rows are new, and raises what `insert` raises."""
        result: Future[int] = Future()
        self._waiting.append((batches, result))
        with self._turn:  # the thread before may have written the records of this one
            if not result.done():
                self._serve()
        return result.result()

    def _serve(self):
        writes = [self._waiting.popleft() for _ in range(len(self._waiting))]
        try:
            new = self._insert(_concatenate([batches for batches, _ in writes]))
        except BaseException as error:  # the threads that wait must raise it, too
            for _, result in writes:
                result.set_exception(error)
            return
        for batches, result in writes:
            digests = new & {digest for batch in batches.values() for digest in batch[sql.DIGEST].to_pylist()}
            new -= digests  # of two that write the same the first has written it
            result.set_result(len(digests))


def _concatenate(writes):
    names = dict.fromkeys(name for batches in writes for name in batches)
    return {name: pa.concat_tables([batches[name] for batches in writes if name in batches]) for name in names}


def _distinct(table, batch):
    """Return the rows of a batch whose keys differ; of those with one key the earliest."""
    key = list(table.key)
    rows = batch.select(list({*key, "time", sql.DIGEST})).append_column("row", pa.array(range(len(batch))))
    earliest = rows.sort_by([("time", "ascending"), (sql.DIGEST, "ascending")])
    return batch.take(earliest.group_by(key, use_threads=False).aggregate([("row", "first")])["row_first"])


def _batch(records):
    """Return records of one kind as a table with their digests."""
    digests = pa.array((digest_of(record.to_json()) for record in records), pa.string())
    return to_table(records).append_column(pa.field(sql.DIGEST, pa.string(), nullable=False), digests)


def _parameter(name, value):
    from google.cloud.bigquery import ScalarQueryParameter

    for type_, kind in _TYPES.items():
        if isinstance(value, type_):
            return ScalarQueryParameter(name, kind, value)
    raise ValueError(f"parameter {name} must be text, a number or a datetime, got {value!r}")
