"""What must be written down of a decision and of what came of it; every schema derives from the records.

A record is validated where it is made and never repaired later: what an estimate divides by must be right when it is
written. Tables of records obey the same rules, column by column, and say the same sentences.
"""

from recbandits.records.records import (
    Interaction,
    Quarantined,
    Reward,
    Verdict,
    arrow_schema,
    bigquery_schema,
    duckdb_schema,
)
from recbandits.records.tables import check_table, from_table, to_table

__all__ = [
    "Interaction",
    "Quarantined",
    "Reward",
    "Verdict",
    "arrow_schema",
    "bigquery_schema",
    "check_table",
    "duckdb_schema",
    "from_table",
    "to_table",
]
