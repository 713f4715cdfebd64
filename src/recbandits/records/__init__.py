"""Records of decisions and rewards, their schemas, and logs of decisions as arrays; all are checked when made.

- `Interaction`, `Reward`: a decision with its propensity, and its reward.
- `Verdict`: the outcome of a gate or guardrail for a version of the policy.
- `Quarantined`: a message that makes no record, with the reason.
- `arrow_schema`, `bigquery_schema`: the schema of a table of records in Arrow and BigQuery.
- `to_table`, `from_table`: records as an Arrow table, and back.
- `Log`: decisions as arrays, with text ids and the raw columns that were known; of a data frame, or of tables.
- `SlateLog`: slates as arrays of numbers, one row for each, for estimators and trainers.
- `REPORT_RULES`: rules by which a decision gets one reward of several reports.
"""

from recbandits.records.log import Log
from recbandits.records.log_columns import REPORT_RULES
from recbandits.records.records import Interaction, Quarantined, Reward, Verdict
from recbandits.records.schemas import arrow_schema, bigquery_schema, from_table, to_table
from recbandits.records.slate_log import SlateLog

__all__ = [
    "REPORT_RULES",
    "Interaction",
    "Log",
    "Quarantined",
    "Reward",
    "SlateLog",
    "Verdict",
    "arrow_schema",
    "bigquery_schema",
    "from_table",
    "to_table",
]
