"""What one row contains: features, tasks, the scenario and the slices.

Frozen dataclasses without tensors. `tfmtr prepare` writes a `Schema` as `schema.json` beside the
examples, training builds the model from it, and the export carries the same file, so that serving
knows what training saw.

Example:
>>> schema = Schema(
...     features=(Feature("age", "user", "number"), Feature("genres", "title", "set", ("drama",), width=4)),
...     tasks=(Task("click"),),
...     scenario=Scenario(("territory",), {("DE",): "west", ("PL",): "east"}),
... )
>>> Schema.from_json(schema.to_json()) == schema
True
>>> schema.scenario.num_groups
2
"""

import dataclasses
import itertools
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from tfmtr.checks import check_choice, check_integer, check_items, check_number, check_path, check_text, check_texts
from tfmtr.kinds import KINDS
from tfmtr.names import EVIDENCE

PAIR = "pair"  # role of what is known of a user and a title: by a first stage, or by counting
ROLES = ("user", "title", "context", PAIR)  # of the features that a model is served with
TRAINING = "training"  # role of what is known in training only
TASK_KINDS = ("binary", "regression")


def check_inputs(needed: Iterable["Feature"], given: Iterable["Feature"], argument: str) -> None:
    """Raises a `ValueError` that names the differences unless a table's features are what a model needs.

    Vocabularies, means and lengths of lists are the model's own: values that it does not know are unknown to it.
    Features that it does not know are left out.

    Args:
        needed: The model's `Feature`s.
        given: `Feature`s of the data.
        argument: What the data are called in the message.
    """
    given_features, problems = {feature.name: feature for feature in given}, []
    for feature in needed:
        given_feature = given_features.get(feature.name)
        if given_feature is None:
            problems.append(f"no {feature.name!r}, which is of the kind {feature.kind}")
        elif given_feature.kind != feature.kind:
            problems.append(f"{feature.name!r} of the kind {given_feature.kind}, not {feature.kind}")
        elif KINDS[feature.kind].has_fixed_width and given_feature.width != feature.width:
            problems.append(f"{feature.name!r} of {given_feature.width} numbers, not {feature.width}")
    if problems:
        raise ValueError(
            f"`{argument}` must have the features that the model was trained with; prepare them from the same columns "
            f"and stores. Received: {'; '.join(problems)}"
        )


@dataclasses.dataclass(frozen=True)
class Feature:
    """One input column of the model.

    Args:
        name: Column of the examples, and name of the model's and the signatures' input.
        role: `"user"`, `"title"` or `"context"`: which tower may see it. Or `"pair"`, a number of a user and a title
            that only a ranking model sees: what a first stage knows (`tfmtr.retrieval.first_stage`), or what was
            counted before the window (`tfmtr.datasets.counters`). Or `"training"`: known in training only,
            such as the position that a title was shown at; no tower sees it, only heads whose losses ask for it.
        kind: A kind of `tfmtr.kinds`: `"id"` (a categorical value of `vocabulary`, text), `"string"` (open-ended text,
            hashed into `width` buckets), `"number"` (normalised with `mean` and `std`), `"vector"` (`width` floats
            from the feature store), `"set"` or `"sequence"` (a list of values of `vocabulary`, cut or padded to
            `width` entries; a sequence is in order of time, newest last).
        vocabulary: Known values, most frequent first. Unknown values share one further embedding.
        width: Buckets, vector width or list length, by kind.
        mean, std: For numbers, of the training users or of all titles.
        quantiles: For numbers, ascending: a model sees how far a value is through each bin between two of them
            (`tfmtr.layers.piecewise_linear`). By default it sees the normalised number itself.
    """

    name: str
    role: Literal["user", "title", "context", "pair", "training"]
    kind: str
    vocabulary: Sequence[str] = ()
    width: int | None = None
    mean: float = 0.0
    std: float = 1.0
    quantiles: Sequence[float] = ()

    def __post_init__(self) -> None:
        check_choice("role", self.role, (*ROLES, TRAINING))
        in_training = [name for name, kind in KINDS.items() if kind.in_training]
        kinds = {TRAINING: in_training, PAIR: [name for name, kind in KINDS.items() if kind.has_quantiles]}
        check_choice("kind", self.kind, kinds.get(self.role, list(KINDS)))
        kind = KINDS[self.kind]
        check_text("name", self.name, of=" of a feature")
        of = f" of feature {self.name!r}"
        object.__setattr__(self, "vocabulary", check_texts("vocabulary", self.vocabulary, of=of))
        if self.width is not None:
            object.__setattr__(self, "width", check_integer("width", self.width, least=0))
        object.__setattr__(self, "mean", check_number("mean", self.mean))
        object.__setattr__(self, "std", check_number("std", self.std))
        if kind.width and not (self.width and self.width > 0):
            raise ValueError(
                f"`width` must be a positive integer for a feature of kind {self.kind!r} "
                f"(buckets, vector width or list length). Received: name={self.name!r}, width={self.width!r}"
            )
        if kind.has_vocabulary and len(set(self.vocabulary)) != len(self.vocabulary):
            raise ValueError(f"`vocabulary` of feature {self.name!r} must not repeat a value.")
        quantiles = tuple(check_number("quantiles", value) for value in self.quantiles)
        object.__setattr__(self, "quantiles", quantiles)
        is_ascending = all(low < high for low, high in itertools.pairwise(quantiles))
        if quantiles and (not kind.has_quantiles or len(quantiles) < 2 or not is_ascending):
            raise ValueError(
                "`quantiles` must be two or more ascending numbers, of a feature of the kind number. Received: "
                f"quantiles={quantiles} of {self.name!r} of the kind {self.kind}"
            )
        if not self.std > 0:
            raise ValueError(f"`std` of feature {self.name!r} must be positive. Received: std={self.std!r}")

    @property
    def is_stored(self) -> bool:
        """Whether its values are vectors of the role's store."""
        return KINDS[self.kind].is_stored


@dataclasses.dataclass(frozen=True)
class Task:
    """One label to predict; a null label means: not observed, masked out of the loss.

    Args:
        name: Name of the task and of its output.
        column: Label column of the examples; the task's name by default.
        kind: `"binary"` (0, 1 or null) or `"regression"` (any finite number or null).
        weight: Factor of this task's loss.
        mean: Mean label of the training rows, where the output's bias starts (at its log-odds for
            a binary task).
        after: Name of the task without which this one cannot be, as a purchase cannot be without a click; heads
            for cascades read it.
    """

    name: str
    column: str = None  # pyright: ignore[reportAssignmentType] - a text from `__post_init__` on
    kind: Literal["binary", "regression"] = "binary"
    weight: float = 1.0
    mean: float = 0.5
    after: str | None = None

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, TASK_KINDS)
        check_text("name", self.name, of=" of a task")
        object.__setattr__(self, "column", self.name if self.column is None else check_text("column", self.column))
        if self.after is not None:
            check_text("after", self.after)
        object.__setattr__(self, "weight", check_number("weight", self.weight, least=0))
        object.__setattr__(self, "mean", check_number("mean", self.mean))
        if self.kind == "binary" and not 0.0 <= self.mean <= 1.0:
            raise ValueError(f"`mean` of the binary task {self.name!r} must be in [0, 1]. Received: mean={self.mean!r}")


@dataclasses.dataclass(frozen=True)
class Scenario:
    """The partition that selects a row's branch.

    One or several columns compose into one scenario: each known combination of their values belongs to
    one named group. Index 0 is kept for combinations that are not listed (the default branch); group
    `names[i]` has index `i + 1`.

    Args:
        columns: The columns, for example `("territory",)`.
        groups: `{values: group}` with one value a column, for example `{("DE",): "west"}`; of one column the value
            alone does.
        order: Groups that come first, in this order; the others follow, sorted. A model that goes on with new groups
            so keeps the places of the old ones.
        parents: `{group: parent}` of all groups where they are within larger ones, as territories are; for sharing
            files that ask for it.
    """

    columns: Sequence[str]
    groups: Mapping[tuple[str, ...], str]
    order: Sequence[str] = ()
    parents: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", check_texts("columns", self.columns))
        object.__setattr__(self, "order", check_texts("order", self.order))
        if not self.columns:
            raise ValueError("`columns` must name at least one column. Received: columns=()")
        if not isinstance(self.groups, Mapping):
            raise ValueError(f"`groups` must be {{values: group}}. Received: groups={self.groups!r}")
        groups = {(key,) if isinstance(key, str) else key: group for key, group in self.groups.items()}
        if bad := [item for item in groups.items() if not _is_group(*item)]:
            raise ValueError(
                "`groups` must be {values: group}, a tuple of texts and a text, such as {('DE',): 'west'}. Received: "
                f"{bad[0][0]!r}: {bad[0][1]!r}"
            )
        object.__setattr__(self, "groups", dict(sorted((tuple(key), group) for key, group in groups.items())))
        for key in self.groups:
            if len(key) != len(self.columns):
                raise ValueError(
                    f"Every key of `groups` must have one value for each of the columns {list(self.columns)}. "
                    f"Received: {key!r}"
                )

        _check_parents(self.parents, self.names)
        object.__setattr__(self, "parents", dict(self.parents))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the groups, `order` first; the name at position i has scenario index i + 1."""
        return (*self.order, *sorted(set(self.groups.values()) - set(self.order)))

    @property
    def num_groups(self) -> int:
        """Number of named groups; the model has one branch more, the default one."""
        return len(self.names)


def _check_parents(parents: Any, groups: Sequence[str]) -> None:
    """Raises a `ValueError` unless all groups have a parent, or none."""
    is_table = isinstance(parents, Mapping) and all(isinstance(text, str) for pair in parents.items() for text in pair)
    if not is_table or (parents and set(parents) != set(groups)):
        raise ValueError(
            f"`parents` must be {{group: parent}} of all groups {list(groups)}, or nothing. Received: "
            f"parents={parents!r}"
        )


def _is_group(values: Any, group: Any) -> bool:
    """Whether an item of a scenario's groups is one."""
    is_key = isinstance(values, tuple | list) and all(isinstance(value, str) for value in values)
    return is_key and isinstance(group, str)


@dataclasses.dataclass(frozen=True)
class Schema:
    """All that training, evaluation and serving must agree on about a row.

    Args:
        features: The model's inputs. A role has at most one feature of kind `"vector"`: the columns of
            the feature store are joined into one matrix a role.
        tasks: At least one task. The first is the primary one: its positives define the examples.
        scenario: What selects a row's branch.
        slices: Columns that evaluation, calibration and availability are split by.
    """

    features: Sequence[Feature]
    tasks: Sequence[Task]
    scenario: Scenario
    slices: Sequence[str] = ("territory",)

    def __post_init__(self) -> None:
        for field, kind in (("features", Feature), ("tasks", Task)):
            items = check_items(field, getattr(self, field), kind, f"`{kind.__name__}`s")
            object.__setattr__(self, field, items)
        object.__setattr__(self, "slices", check_texts("slices", self.slices))
        if not isinstance(self.scenario, Scenario):
            raise ValueError(f"`scenario` must be a `Scenario`. Received: scenario={self.scenario!r}")
        if not self.tasks:
            raise ValueError("`tasks` must name at least one task. Received: tasks=()")
        for field in ("features", "tasks"):
            names = [item.name for item in getattr(self, field)]
            repeated = sorted({name for name in names if names.count(name) > 1})
            if repeated:
                raise ValueError(f"`{field}` must have different names. Received more than once: {repeated}")
        for role in ROLES:
            vectors = [f.name for f in self.features if f.role == role and f.is_stored]
            if len(vectors) > 1:
                raise ValueError(
                    f"A role has at most one vector feature; join them into one matrix. Received for "
                    f"{role!r}: {vectors}"
                )

    def by_role(self, *roles: str) -> tuple[Feature, ...]:
        """Features of the given roles, in order."""
        return tuple(feature for feature in self.features if feature.role in roles)

    @property
    def evidence(self) -> tuple[Feature, ...]:
        """Features of the role pair that a first stage gives, see `tfmtr.retrieval.first_stage`."""
        return tuple(feature for feature in self.by_role(PAIR) if feature.name.startswith(EVIDENCE))

    @property
    def counters(self) -> tuple[Feature, ...]:
        """Features of the role pair that were counted, see `tfmtr.datasets.counters`."""
        return tuple(feature for feature in self.by_role(PAIR) if not feature.name.startswith(EVIDENCE))

    def replace(self, **changes: Any) -> "Schema":
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def to_json(self) -> str:
        """The schema as indented JSON text."""
        document = dataclasses.asdict(self)
        for feature in document["features"]:
            if not feature["quantiles"]:
                del feature["quantiles"]  # so that a schema without them reads, and hashes, as it always has
        for task in document["tasks"]:
            if task["after"] is None:
                del task["after"]  # likewise
        if not self.scenario.order:
            del document["scenario"]["order"]  # likewise
        if not self.scenario.parents:
            del document["scenario"]["parents"]  # likewise
        document["scenario"]["groups"] = [[*key, group] for key, group in self.scenario.groups.items()]
        return json.dumps(document, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Schema":
        """The schema that `to_json` wrote."""
        document = json.loads(text)
        scenario = document["scenario"]
        return cls(
            features=[Feature(**feature) for feature in document["features"]],
            tasks=[Task(**task) for task in document["tasks"]],
            scenario=Scenario(
                scenario["columns"],
                {tuple(row[:-1]): row[-1] for row in scenario["groups"]},
                scenario.get("order", ()),
                scenario.get("parents", {}),
            ),
            slices=document["slices"],
        )

    def save(self, path: str | os.PathLike) -> None:
        """Writes `schema.json` into the directory `path`."""
        Path(path, "schema.json").write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Schema":
        """Reads `schema.json` from the directory `path`.

        Raises:
            ValueError: If `path` has no `schema.json`, or it holds no schema.
        """
        file = check_path("path", path) / "schema.json"
        if not file.is_file():
            raise ValueError(
                f"`{path}` must be a directory made by `tfmtr prepare` or `tfmtr train`: it has no schema.json."
            )
        try:
            return cls.from_json(file.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"`{file}` must be a whole JSON document; make it again. Received: {error}") from None
        except (AttributeError, IndexError, KeyError, TypeError) as error:  # no object, or without a key
            raise ValueError(
                f"`{file}` must hold a schema as `tfmtr prepare` writes it; make it again. Received: "
                f"{type(error).__name__}: {error}"
            ) from None
