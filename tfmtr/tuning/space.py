"""What a search may choose: for keys of a recipe, choices or a range, as a TOML file has them.

    batch_size = [512, 1024, 2048]
    learning_rate = { low = 1e-4, high = 1e-2, log = true }
    listwise = [true, false]
    share = [{ name = "mmoe", num_experts = 2 }, { name = "ple", num_experts = 2 }, "none"]
    "head.temperature" = { low = 0.1, high = 1.0 }

Keys are those of `tfmtr train --set`; a key with a dot is an option of a part, best in quotes, for dots are tables to
TOML. A list is of choices. A table with `low` and `high` is a range, both ends included: of whole numbers where both
ends are and the recipe's value may be one, else of any. `log = true` draws its logarithm evenly; `step` is the distance
of the values that are drawn.
"""

import dataclasses
import functools
import itertools
import json
import math
import numbers
import tomllib
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfmtr.checks import is_finite, nearest
from tfmtr.recipe import DEFAULTS, STORED_AS_TABLES, Recipe, as_toml
from tfmtr.schema import Schema

if TYPE_CHECKING:
    import optuna

# What no search chooses: why.
FIXED = {
    "updates": "the budget is the same for all tries; say it with `updates`",
    "epochs": "the budget is the same for all tries; say it with `updates`",
    "patience": "the budget is the same for all tries, and none ends before it",
    "patience_updates": "the budget is the same for all tries, and none ends before it",
    "seed": "the best of several seeds is luck, which the next run does not have",
}
RANGE = ("low", "high", "log", "step")
MOST_COMBINATIONS = 1_000  # that are all checked; of larger spaces each pair of values is
FORMS = "a list of choices, or a range such as {low = 1e-4, high = 1e-2, log = true}"


@dataclasses.dataclass(frozen=True)
class Choices:
    """Values to choose from.

    Args:
        key: Of the recipe.
        values: The values, as a file can hold them.

    Raises:
        ValueError: If there are fewer than two, or two are equal.
    """

    key: str
    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if len(set(self.labels)) < max(len(self.values), 2):
            raise ValueError(
                f"`{self.key}` of `space` must have two or more choices, each once; what is the same for all tries "
                f"belongs to the recipe. Received: {list(self.values)}"
            )

    @property
    def labels(self) -> tuple[str, ...]:
        """A text for each choice, which stands for it where the search is stored."""
        return tuple(map(as_toml, self.values))

    @property
    def ends(self) -> tuple[Any, ...]:
        """Values that a recipe must take for all to be taken."""
        return self.values

    @property
    def distribution(self) -> "optuna.distributions.BaseDistribution":
        """What Optuna draws from."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.labels)

    def value(self, drawn: Any) -> Any:
        """The value of what was drawn."""
        return self.values[self.labels.index(drawn)]

    def document(self) -> Any:
        """The choices as a file has them."""
        return list(self.values)


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers between two ends, which are among them.

    Args:
        key: Of the recipe.
        low: The least number.
        high: The greatest.
        log: Whether the number's logarithm is drawn evenly.
        step: Distance of the numbers from `low` on; of whole numbers 1, of others as near as they can be.

    Raises:
        ValueError: If an end is no finite number, there is nothing between the ends, or `log` and `step` do not fit.
    """

    key: str
    low: float
    high: float
    log: bool = False
    step: float | None = None

    def __post_init__(self) -> None:
        for name in ("low", "high", "step"):
            value = getattr(self, name)
            is_number = isinstance(value, numbers.Real) and not isinstance(value, bool) and is_finite(value)
            if not is_number and not (name == "step" and value is None):
                raise self._refused(f"`{name}` that is a finite number")
        if not isinstance(self.log, bool):
            raise self._refused("`log` that is true or false")
        if self.low >= self.high:
            raise self._refused("`low` below `high`, or it is empty")
        if self.log and self.low <= 0:
            raise self._refused("`low` above 0 where `log = true`: there is no logarithm of 0 and less")
        if self.step is not None and (self.log or not 0 < self.step <= self.high - self.low):
            raise self._refused("`step` above 0 and within the range, and none where `log = true`")

    def _refused(self, must: str) -> ValueError:
        return ValueError(f"The range `{self.key}` of `space` must have a {must}. Received: {self.document()}")

    @property
    def is_whole(self) -> bool:
        """Whether the numbers are whole ones."""
        kind = _kind_of(self.key)
        given = (self.low, self.high) if self.step is None else (self.low, self.high, self.step)
        return kind is not float and all(isinstance(number, numbers.Integral) for number in given)

    @property
    def ends(self) -> tuple[Any, ...]:
        """Values that a recipe must take for all to be taken."""
        return (self.low, self.high) if self.is_whole else (float(self.low), float(self.high))

    @property
    def distribution(self) -> "optuna.distributions.BaseDistribution":
        """What Optuna draws from."""
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.is_whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return FloatDistribution(float(self.low), float(self.high), log=self.log, step=self.step)

    def value(self, drawn: Any) -> Any:
        """The value of what was drawn."""
        return drawn

    def document(self) -> Any:
        """The range as a file has it."""
        found = {name: getattr(self, name) for name in RANGE}
        return {name: value for name, value in found.items() if value is not None and value is not False}


@dataclasses.dataclass(frozen=True)
class Space:
    """What a search may choose.

    Args:
        dimensions: `{key: Choices or Range}`, parts before their options.

    Raises:
        ValueError: If there is none.

    Example:
    >>> space = Space.of({"l2": {"low": 1e-6, "high": 1e-3, "log": True}, "share": ["none", "mmoe"]})
    >>> space.recipe(Recipe(), {"l2": 1e-5, "share": "mmoe"}, updates=100).updates
    100
    """

    dimensions: Mapping[str, Choices | Range]

    def __post_init__(self) -> None:
        if not self.dimensions:
            raise ValueError(f"`space` must have a key of the recipe with {FORMS}. Received: none")

    @classmethod
    def load(cls, file: str | Path) -> "Space":
        """The space of a TOML file; see the module.

        Raises:
            ValueError: If the file cannot be read, or is no space; the message has its path.
        """
        try:
            return cls.of(tomllib.loads(Path(file).read_text(encoding="utf-8-sig")))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
            hint = " Write keys with a dot in quotes." if "overwrite" in str(error).lower() else ""
            text = f"`space` must be a TOML file that can be read.{hint} Received: {file} ({error})"
        except ValueError as error:
            text = f"{file}: {error}"
        raise ValueError(text)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> "Space":
        """The space of a dictionary as a file has it, or with keys that have dots.

        Raises:
            ValueError: If a key is no recipe's or cannot be searched, comes twice, or has neither choices nor a range.
        """
        dimensions: dict[str, Choices | Range] = {}
        for key, value in _flat(document):
            name = key.partition(".")[0]
            if name not in DEFAULTS:
                raise ValueError(
                    f"`space` must have keys of a recipe: {sorted(set(DEFAULTS) - set(FIXED))}."
                    f"{nearest(name, set(DEFAULTS) - set(FIXED))} Received: {key!r}"
                )
            if name in FIXED:
                raise ValueError(f"`space` must not have `{key}`: {FIXED[name]}. Received: {key}={value!r}")
            if key in dimensions:
                raise ValueError(f"`space` must name each key once. Received: {key!r} twice")
            dimensions[key] = _dimension(key, value)
        order = sorted(dimensions, key=lambda key: ("." in key, list(dimensions).index(key)))
        return cls({key: dimensions[key] for key in order})

    def document(self) -> dict[str, Any]:
        """The space as JSON has it, keys with their dots."""
        return json.loads(json.dumps({key: dimension.document() for key, dimension in self.dimensions.items()}))

    @property
    def distributions(self) -> dict[str, Any]:
        """What Optuna draws from, by key."""
        return {key: dimension.distribution for key, dimension in self.dimensions.items()}

    def values(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        """The values of what was drawn, by key; keys that were not drawn are left out."""
        return {key: one.value(drawn[key]) for key, one in self.dimensions.items() if key in drawn}

    def recipe(self, base: Recipe, values: Mapping[str, Any], *, updates: int) -> Recipe:
        """A try's recipe.

        Args:
            base: What the search does not choose.
            values: `{key: value}`.
            updates: Updates of the try, all of which are made: the epoch with the best validation loss is kept.

        Raises:
            ValueError: If there is no such recipe.
        """
        budget = {"updates": updates, "patience_updates": updates}
        document = {name: value for name, value in base.document().items() if name not in FIXED or name == "seed"}
        return Recipe.from_document({**document, **budget}, values)

    def check(self, base: Recipe, schema: Schema, *, updates: int, form: str | None = None) -> None:
        """Raises a `ValueError` unless the recipe takes what may be chosen, in one line.

        All combinations of choices and of ranges' ends are tried, or, where there are more than a thousand, each pair
        of values beside the first ones of the others.

        Args:
            base: What the search does not choose.
            schema: The data's.
            updates: Of a try.
            form: What the recipe's form must be, if anything.
        """

        @functools.cache
        def why_not(changes: tuple[tuple[str, str], ...]) -> str | None:
            values = {key: ends[key][place] for key, place in changes}
            try:
                recipe = self.recipe(base, values, updates=updates)
                recipe.adapt(schema)
            except ValueError as error:
                return str(error)
            if form is not None and recipe.form != form:
                return (
                    f"`objective=ndcg` is of lists, which need form={form}; a ranking model is judged by pr_auc or "
                    f"loss. Received: form={recipe.form!r}"
                )
            return None

        ends = {key: dict(zip(map(as_toml, one.ends), one.ends, strict=True)) for key, one in self.dimensions.items()}
        for combination in _combinations({key: list(values) for key, values in ends.items()}):
            if why_not(combination) is None:
                continue
            for pair in combination:  # without what it would be refused without, too
                less = tuple(other for other in combination if other != pair)
                has_options = any(key.startswith(f"{pair[0]}.") for key, _ in less)
                if not has_options and why_not(less) == why_not(combination):
                    combination = less
            shown = ", ".join(f"{key} = {value}" for key, value in combination) or "the recipe itself"
            raise ValueError(
                f"`space` must have values that make a recipe in every combination, and {shown} makes none: "
                f"{why_not(combination)}"
            )


def _flat(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields `(key, value)` with dots in the keys, of tables that TOML made of dots."""
    for name, value in document.items():
        is_table = isinstance(value, Mapping) and not set(RANGE) & set(value)
        if is_table and not prefix and name in (*STORED_AS_TABLES, "task_weights", "groups") and value:
            yield from _flat(value, f"{name}.")
        else:
            yield prefix + name, value


def _dimension(key: str, value: Any) -> Choices | Range:
    try:
        json.dumps(value)
    except TypeError:  # a date, for example
        raise ValueError(
            f"`{key}` of `space` must have numbers, texts, lists and tables. Received: {value!r}"
        ) from None
    if isinstance(value, (list, tuple)):
        return Choices(key, tuple(value))
    if not isinstance(value, Mapping) or not {"low", "high"} & set(value):
        raise ValueError(f"`{key}` of `space` must be {FORMS}. Received: {key}={value!r}")
    if unknown := sorted(set(value) - set(RANGE)):
        raise ValueError(
            f"The range `{key}` of `space` must have keys of {list(RANGE)}.{nearest(unknown[0], RANGE)} "
            f"Received: {unknown[0]!r}"
        )
    if missing := [name for name in ("low", "high") if name not in value]:
        raise ValueError(f"The range `{key}` of `space` must have `low` and `high`. Received: no {missing[0]}")
    return Range(key, **value)


def _kind_of(key: str) -> Any:
    """The type of a recipe's number, `None` of an option, whose part knows it."""
    kind = typing.get_type_hints(Recipe).get(key)
    return next((one for one in (float, int) if one in (kind, *typing.get_args(kind))), None)


def _combinations(values: Mapping[str, list[str]]) -> Iterator[tuple[tuple[str, str], ...]]:
    """Yields combinations `((key, value), ...)`: all, or where they are too many those of each pair of values."""
    if math.prod(map(len, values.values())) <= MOST_COMBINATIONS:
        yield from (tuple(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values()))
        return
    for one, other in itertools.combinations(values, 2):
        for pair in itertools.product(values[one], values[other]):
            chosen = {key: options[0] for key, options in values.items()} | dict(zip((one, other), pair, strict=True))
            yield tuple(chosen.items())
