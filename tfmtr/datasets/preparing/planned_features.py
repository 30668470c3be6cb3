"""Turns the extra columns of a log into features, and sets lists of floats aside for the stores."""

# Ibis says less of its columns than they can do, and of its functions than they take:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false

import dataclasses
from collections.abc import Mapping, Sequence

import ibis
import ibis.expr.types as ir

from tfmtr.datasets.features import as_feature, count_changed, count_missing, find_features
from tfmtr.datasets.names import inside
from tfmtr.datasets.preparing.buckets import Buckets
from tfmtr.datasets.preparing.checked_log import CheckedLog
from tfmtr.datasets.preparing.work import Work
from tfmtr.schema import Feature


@dataclasses.dataclass(frozen=True)
class FeaturePlan:
    """What becomes of the extra columns.

    Args:
        features: `{"user", "title", "training" or "context": list of Feature}`.
        vector_columns: `{"user" or "title": names of columns that are lists of floats}`.
    """

    features: Mapping[str, Sequence[Feature]]
    vector_columns: Mapping[str, Sequence[str]]

    def columns(self, table: ibis.Table, role: str) -> list[ir.Value]:
        """The features of a table as they are written."""
        return [as_feature(table, feature) for feature in self.features[role]]


def plan_features(work: Work, log: CheckedLog, buckets: Buckets) -> FeaturePlan:
    """Looks at the extra columns; vocabularies and means are those of training users, and of all titles."""
    users = buckets.part("users", buckets.everything)
    training = users.filter(users.split == "train")
    features, vector_columns = {}, {}
    for role, table, kinds in (("user", training, log.kinds["users"]), ("title", log.titles, log.kinds["titles"])):
        ignored = [f"{name} ({table[inside(name)].type()})" for name, kind in kinds.items() if kind is None]
        work.warn(len(ignored), f"columns of the {role}s are left out because of the type: {ignored}")
        vector_columns[role] = [name for name, kind in kinds.items() if kind == "vector"]
        names = [name for name, kind in kinds.items() if kind not in (None, "vector")]
        features[role] = find_features(work.engine, table, role, names)
        numbers = [name for name in names if kinds[name] == "number"]
        everyone = users if role == "user" else table
        work.warnings.extend(count_changed(work.engine, everyone, numbers))
        work.warnings.extend(count_missing(work.engine, everyone, f"{role}s", numbers))
    events, kinds = buckets.part("events", buckets.everything), log.tables.training
    known = events.filter(events.window <= 0)
    features["training"] = find_features(work.engine, known, "training", list(kinds))
    features["context"] = find_features(work.engine, known, "context", list(log.tables.context))
    numbers = [name for name, kind in (*kinds.items(), *log.tables.context.items()) if kind == "number"]
    work.warnings.extend(count_missing(work.engine, events, "events", numbers))
    numbers += [task for task, kind in log.tasks.items() if kind == "regression"]
    work.warnings.extend(count_changed(work.engine, events, numbers))
    return FeaturePlan(features, vector_columns)
