"""Writes the user store, pass after pass."""

# Ibis says less of its columns than they can do, and of its functions than they take:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false

from collections.abc import Iterator

import ibis
import numpy as np

from tfmtr.datasets import stores
from tfmtr.datasets.history import mean_vectors, recent_titles
from tfmtr.datasets.names import inside
from tfmtr.datasets.preparing.buckets import Buckets
from tfmtr.datasets.preparing.checked_log import CheckedLog
from tfmtr.datasets.preparing.planned_features import FeaturePlan
from tfmtr.datasets.preparing.survey import Survey
from tfmtr.datasets.preparing.work import Work


class UserStore:
    """The user store of a data set, which the passes write one after the other.

    Args:
        work: A `Work`.
        log: A `CheckedLog`.
        buckets: A `Buckets`.
        survey: A `Survey`.
        plan: A `FeaturePlan`.
        title_vectors: Matrix in the order of the titles, which histories are means of.

    Attributes:
        width: Of one vector; 0 where users have none.
    """

    def __init__(
        self,
        work: Work,
        log: CheckedLog,
        buckets: Buckets,
        survey: Survey,
        *,
        plan: FeaturePlan,
        title_vectors: np.ndarray,
    ) -> None:
        self.work, self.titles, self.buckets, self.num_states = work, log.titles, buckets, survey.num_states
        self.columns, self.title_vectors = plan.vector_columns["user"], title_vectors
        self.writer, self.width = None, 0

    def append(self, some: range, states: ibis.Table) -> None:
        """Appends the vectors of some buckets, whose states are numbered over all buckets."""
        upstream = self.buckets.upstream
        if upstream is None and not self.buckets.has_history and not self.columns:
            return
        users = self.buckets.part("users", some)
        rows = states.inner_join(users.select("user", *map(inside, self.columns)), "user")
        if upstream is not None:
            ids = self.buckets.part("store", some).select("user", "store_row")
            rows = rows.left_join(ids, "user").drop("user_right")
        history = self.history_blocks(some, states)
        ids = ["user", "window"] if self.buckets.has_history else ["user"]
        for table in self.work.engine.stream(rows.order_by("row")):
            parts = [stores.list_matrix(table.column(inside(name)).combine_chunks(), name) for name in self.columns]
            if upstream is not None:
                parts.insert(0, stores.gather(upstream, stores.array_of(table, "store_row")))
            if self.buckets.has_history:
                parts.insert(0, next(history))
            block, table = np.hstack(parts), table.select(ids)
            if self.writer is None:
                path, self.width = self.work.out / "vectors/user", block.shape[1]
                self.writer = stores.StoreWriter(path, int(self.num_states.sum()), self.width, table.schema)
            self.writer.append([block])
            self.writer.append_ids(table)

    def history_blocks(self, some: range, states: ibis.Table) -> Iterator[np.ndarray]:
        """History vectors of some buckets in the order of their states, in blocks as `stream` cuts them."""
        if not self.buckets.has_history:
            return iter(())
        pairs = recent_titles(states, self.buckets.history_events(some), self.titles)
        pairs = self.work.engine.to_pyarrow(pairs)
        rows, title_rows = (pairs.column(name).to_numpy() for name in ("row", "title_row"))
        first, end = (int(self.num_states[:bucket].sum()) for bucket in (some.start, some.stop))
        return mean_vectors(rows - first, title_rows, self.title_vectors, end - first)

    def close(self) -> None:
        """Finishes the files."""
        if self.writer is not None:
            self.writer.close()
