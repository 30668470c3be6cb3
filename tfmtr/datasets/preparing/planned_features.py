"""Turns the extra columns of a log into features, and sets lists of floats aside for the stores."""

# Ibis says less of its columns than they can do, and of its functions than they take:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false

import dataclasses
from collections.abc import Mapping, Sequence

import ibis
import ibis.expr.types as ir

from tfmtr.datasets.features import as_feature, count_changed, count_missing, find_features
from tfmtr.datasets.id_features import find_id_features
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
        ids: `{"user" or "title": Feature}` of the ids that are features; all tables have their columns already.
    """

    features: Mapping[str, Sequence[Feature]]
    vector_columns: Mapping[str, Sequence[str]]
    ids: Mapping[str, Feature] = dataclasses.field(default_factory=dict)

    def columns(self, table: ibis.Table, role: str) -> list[ir.Value]:
        """The features of a table as they are written."""
        return [as_feature(table, feature) for feature in self.features[role]]

    @property
    def all_features(self) -> list[Feature]:
        """The features of all roles as a schema has them, but for vectors."""
        roles = ("user", "title", "training", "context")
        return [f for role in roles for f in (*filter(None, [self.ids.get(role)]), *self.features[role])]


@dataclasses.dataclass(frozen=True)
class FeatureRows:
    """Rows that features are made of.

    Args:
        of_role: `{"user", "title" or "event": table that vocabularies, means and deviations are taken from}`.
        everything: `{"user", "title" or "event": table of all rows}`, in which missing values are counted.
        training: Table with `user` and `title`, by whose rows ids are frequent.
    """

    of_role: Mapping[str, ibis.Table]
    everything: Mapping[str, ibis.Table]
    training: ibis.Table


def plan_features(work: Work, log: CheckedLog, buckets: Buckets) -> FeaturePlan:
    """Looks at the extra columns; vocabularies and means are those of training users, and of all titles."""
    users, events = (buckets.part(name, buckets.everything) for name in ("users", "events"))
    learners, known = users.filter(users.split == "train"), events.filter(events.window <= 0)
    return find_plan(
        work,
        log,
        FeatureRows(
            of_role={"user": learners, "title": log.titles, "event": known},
            everything={"user": users, "title": log.titles, "event": events},
            training=known.semi_join(learners, "user"),
        ),
    )


def find_plan(work: Work, log: CheckedLog, rows: FeatureRows) -> FeaturePlan:
    """Looks at the extra columns in some rows."""
    features, vector_columns = {}, {}
    for role, kinds in (("user", log.kinds["users"]), ("title", log.kinds["titles"])):
        table, everyone = rows.of_role[role], rows.everything[role]
        ignored = [f"{name} ({everyone[inside(name)].type()})" for name, kind in kinds.items() if kind is None]
        work.warn(len(ignored), f"columns of the {role}s are left out because of the type: {ignored}")
        vector_columns[role] = [name for name, kind in kinds.items() if kind == "vector"]
        names = [name for name, kind in kinds.items() if kind not in (None, "vector")]
        features[role] = find_features(work.engine, table, role, names)
        numbers = [name for name in names if kinds[name] == "number"]
        work.warnings.extend(count_changed(work.engine, everyone, numbers))
        work.warnings.extend(count_missing(work.engine, everyone, f"{role}s", numbers))
    known, events, kinds = rows.of_role["event"], rows.everything["event"], log.tables.training
    features["training"] = find_features(work.engine, known, "training", list(kinds))
    features["context"] = find_features(work.engine, known, "context", list(log.tables.context))
    numbers = [name for name, kind in (*kinds.items(), *log.tables.context.items()) if kind == "number"]
    work.warnings.extend(count_missing(work.engine, events, "events", numbers))
    numbers += [task for task, kind in log.tasks.items() if kind == "regression"]
    work.warnings.extend(count_changed(work.engine, events, numbers))
    ids, warnings = find_id_features(work.engine, work.logs.id_features, rows.training)
    work.warnings.extend(warnings)
    return FeaturePlan(features, vector_columns, ids)
