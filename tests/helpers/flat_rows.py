"""The tables that a multi-domain data set writes, as one."""

import pyarrow.parquet as pq

from tfmtr.datasets.domains import look_up


def flat(logs):
    """Rows with the columns of their users and titles, in the order of the file: an Arrow table."""
    rows = pq.read_table(logs.events)
    for table, key in ((pq.read_table(logs.users), "user"), (pq.read_table(logs.titles), "title")):
        found = look_up(table, key, rows[key])
        for name in [name for name in table.column_names if name != key]:
            rows = rows.append_column(name, found[name])
    return rows
