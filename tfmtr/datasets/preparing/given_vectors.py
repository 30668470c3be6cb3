"""Writes the store of users or titles from what is given: an upstream store, and columns that are lists of floats."""

# Ibis says less of its columns than they can do, and of its functions than they take:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from collections.abc import Sequence
from typing import Literal

import ibis
import numpy as np

from tfmtr.datasets import stores
from tfmtr.datasets.log_tables import check_unique
from tfmtr.datasets.names import inside
from tfmtr.datasets.preparing.work import Work


def write_vectors(work: Work, owners: ibis.Table, role: Literal["user", "title"], names: Sequence[str]) -> int:
    """Writes the store of users or titles, if anything is given that vectors are made of.

    Args:
        work: A `Work`.
        owners: Table with the column `role`, the number of each row, `<role>_row`, and the columns `names`.
        role: Whose vectors they are.
        names: Of the columns that are lists of floats.

    Returns:
        Width of a vector; 0 where there are none.

    Raises:
        ValueError: If an owner has no vector upstream and zero vectors are not allowed, or lists differ in length.
    """
    place, path = f"{role}_row", {"user": work.logs.user_vectors, "title": work.logs.title_vectors}[role]
    if path is None and not names:
        return 0
    rows, upstream = owners.select(role, place, *map(inside, names)), None
    if path is not None:
        upstream, ids = stores.open_store(work.engine, path, f"{role}_vectors", role)
        check_unique(work.engine, ids, role, f"{role}_vectors")
        rows = work.engine.view(rows.left_join(ids, role).drop(f"{role}_right"))
        lacking = rows.filter(rows.store_row.isnull())
        count, first = work.engine.execute(lacking.count()), work.engine.rows(lacking.order_by(place).limit(3))
        stores.check_vectors_found(count, [row[role] for row in first], role, work.options["missing_vectors"])
        work.warn(count, f"{role}s have no vector and got the zero vector")
    number, writer, width = work.engine.execute(owners.count()), None, 0
    for table in work.engine.stream(rows.order_by(place)):
        parts = [stores.list_matrix(table.column(inside(name)).combine_chunks(), name) for name in names]
        if upstream is not None:
            parts.insert(0, stores.gather(upstream, stores.array_of(table, "store_row")))
        block, ids = np.hstack(parts), table.select([role])
        if writer is None:
            width = block.shape[1]
            writer = stores.StoreWriter(work.out / "vectors" / role, number, width, ids.schema)
        writer.append([block])
        writer.append_ids(ids)
    if writer is not None:
        writer.close()
    return width
