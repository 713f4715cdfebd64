"""The warehouse on Google Cloud: tables of BigQuery, by day and clustered by event."""

import functools
import io
import uuid
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from recbandits.platforms import warehouse_sql as sql
from recbandits.platforms.gcp.assets import have
from recbandits.platforms.gcp.errors import explained
from recbandits.platforms.gcp.writer import Writer
from recbandits.platforms.protocol import Resource
from recbandits.platforms.warehouse import Warehouse, digest_of
from recbandits.records import to_table

_LIFE = timedelta(hours=1)  # of the table that a batch is loaded into, should nobody be left to remove it
_TYPES = {datetime: "TIMESTAMP", float: "FLOAT64", bool: "BOOL", int: "INT64", str: "STRING"}  # a bool is an int


class BigQueryWarehouse(Warehouse):
    """See `Warehouse`. A batch is loaded into a table of its own, which costs nothing, and merged from there.

    Loading and merging takes seconds, and BigQuery lets only a few merge into one table at a time: within a process
    whoever writes meanwhile goes together with the next batch.

    Args:
      config: Config whose dataset exists.
      clients: `Clients`
    """

    def __init__(self, config, clients):
        self._config, self._clients = config, clients
        self._dataset = f"{config.project}.{config.dataset}"

    def create(self, expiry=None):
        """See `Warehouse.create`.

        Args:
          expiry: days, positive, after which BigQuery forgets decisions, rewards and quarantined messages; verdicts
            stay. Given, it holds for tables that are there already, too. None leaves those as they are, and tables that
            are made now keep everything.

        Raises:
          ValueError: days that are not positive.
        """
        from google.cloud import bigquery

        if expiry is not None and not expiry > 0:
            raise ValueError(f"expiry must be a positive number of days, got {expiry!r}")
        for table in sql.TABLES.values():
            wanted = bigquery.Table(f"{self._dataset}.{table.name}", _schema(table))
            wanted.time_partitioning = _partitions(table, expiry)
            wanted.clustering_fields = [table.key[0]]
            if not self._have(wanted) and expiry is not None:
                self._keep_days(wanted)
        view = bigquery.Table(f"{self._dataset}.decisions")
        view.view_query = sql.VIEW.format(dataset=f"{self._dataset}.")
        self._have(view)

    def _have(self, wanted):
        """Make a table or a view unless it is there, and list it; gives whether it was made."""
        wanted.labels, client = self._config.labels, self._clients.bigquery
        resource = Resource("table", str(wanted.reference))
        return have(
            self._config,
            resource,
            lambda: client.get_table(resource.name),
            lambda: client.create_table(wanted, retry=None),
        )

    def _keep_days(self, wanted):
        """Have a table that is there keep its rows as long as is wanted now."""
        with explained(Resource("table", str(wanted.reference)), "changed"):
            found = self._clients.bigquery.get_table(wanted.reference)
            if found.time_partitioning != wanted.time_partitioning:
                found.time_partitioning = wanted.time_partitioning
                self._clients.bigquery.update_table(found, ["time_partitioning"])

    def query(self, text, parameters=None):
        """See `Warehouse.query`."""
        from google.cloud import bigquery

        given = [_parameter(name, value) for name, value in (parameters or {}).items() if f"@{name}" in text]
        settings = bigquery.QueryJobConfig(
            default_dataset=self._dataset, query_parameters=given, use_legacy_sql=False, labels=self._config.labels
        )
        with explained(Resource("dataset", self._dataset), "asked"):
            rows = self._clients.bigquery.query_and_wait(text, job_config=settings)
            return rows.to_arrow(create_bqstorage_client=False)

    def insert(self, batches):
        """Add rows, unless they are there; each table for itself.

        Args:
          batches: dict from name of a table to pyarrow.Table with its columns.

        Returns:
          list of the digests of those that are new.
        """
        return [digest for name, batch in batches.items() for digest in self._insert(name, _distinct(name, batch))]

    def _insert(self, name, batch):
        table, staging = sql.BY_NAME[name], f"batch_of_{name}_{uuid.uuid4().hex}"
        with explained(Resource("table", f"{self._dataset}.{name}"), "written to"):
            try:
                self._load(table, staging, batch)
                new = self.query(sql.missing(table, staging), _bounds(batch))["digest"].to_pylist()
                if new:
                    self.query(sql.merge(table, staging), _bounds(batch))
                return new
            finally:
                self._clients.bigquery.delete_table(f"{self._dataset}.{staging}", not_found_ok=True)

    def _load(self, table, staging, batch):
        import pyarrow.parquet as pq
        from google.cloud import bigquery
        from google.cloud.bigquery.format_options import ParquetOptions

        place = bigquery.Table(f"{self._dataset}.{staging}", _schema(table))
        place.expires = datetime.now(UTC) + _LIFE
        place.labels = self._config.labels
        self._clients.bigquery.create_table(place)
        lists = ParquetOptions()
        lists.enable_list_inference = True
        settings = bigquery.LoadJobConfig(
            source_format=bigquery.SourceFormat.PARQUET,
            parquet_options=lists,
            schema=_schema(table),
            write_disposition=bigquery.WriteDisposition.WRITE_EMPTY,
            labels=self._config.labels,
        )
        file = io.BytesIO()
        pq.write_table(batch, file)
        load = self._clients.bigquery.load_table_from_file(
            file, place.reference, rewind=True, size=file.tell(), job_config=settings
        )
        load.result()

    def _merge(self, groups):
        return self._writer.write({table.name: _batch(records) for table, records in groups.items()})

    def _drop(self, time):
        self.query(";\n".join(("BEGIN TRANSACTION", *sql.DROP, "COMMIT TRANSACTION")), {"time": time})

    @functools.cached_property
    def _writer(self):
        return Writer(self.insert)


def _distinct(name, batch):
    """The rows of a batch for the table of that name without those whose key another row has; the earliest is left."""
    if len(batch) == 1:
        return batch
    key = list(sql.BY_NAME[name].key)
    rows = batch.select(list(dict.fromkeys([*key, "time", sql.DIGEST]))).append_column(
        "row", pa.array(range(len(batch)))
    )
    earliest = rows.sort_by([("time", "ascending"), (sql.DIGEST, "ascending")])
    return batch.take(earliest.group_by(key, use_threads=False).aggregate([("row", "first")])["row_first"])


def _bounds(batch):
    """Times of the first and the last row of a batch: parameters of `merge`."""
    times = pc.min_max(batch["time"]).as_py()
    return {"first": times["min"], "last": times["max"]}


def _batch(records):
    """Records of one kind as a table with their digests."""
    digests = pa.array(map(digest_of, records), pa.string())
    return to_table(records).append_column(pa.field(sql.DIGEST, pa.string(), nullable=False), digests)


def _schema(table):
    from google.cloud.bigquery import SchemaField

    return [SchemaField.from_api_repr(column) for column in table.schema]


def _partitions(table, expiry):
    from google.cloud.bigquery import TimePartitioning, TimePartitioningType

    kept = expiry is None or table.name == "verdicts"
    life = None if kept else int(timedelta(days=expiry) / timedelta(milliseconds=1))
    return TimePartitioning(type_=TimePartitioningType.DAY, field="time", expiration_ms=life)


def _parameter(name, value):
    from google.cloud.bigquery import ScalarQueryParameter

    for type_, kind in _TYPES.items():
        if isinstance(value, type_):
            return ScalarQueryParameter(name, kind, value)
    raise ValueError(f"parameter {name} must be text, a number or a datetime, got {value!r}")
