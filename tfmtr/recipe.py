"""What decides a run's result, beside the data: the recipe that a run directory stores, and a TOML file holds."""

import contextlib
import dataclasses
import inspect
import json
import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import tomli_w

from tfmtr import components, declared
from tfmtr.checks import check_boolean, check_integer, check_number, check_widths
from tfmtr.precision import POLICIES
from tfmtr.read_only import read_only
from tfmtr.schema import TRAINING, Scenario, Schema, check_choice, nearest

if TYPE_CHECKING:
    from tfmtr.models import JointModel

FORMS = ("two_tower", "ranking")
LATER_FORMS = ("graph",)  # of the design, not built yet
ENCODERS = "encoders.interactions"  # of ranking models
PARTS = {"share": "sharing", "head": "heads", "balance": "balancing", "optimizer": "optimizers"}
SCHEDULES = ("cosine_decay", "exponential_decay", "inverse_time_decay", "piecewise_constant_decay", "polynomial_decay")
LISTED = "piecewise_constant_decay"  # the schedule that lists its rates itself
RATES = ("beta_1", "beta_2", "rho", "momentum")  # options of optimizers: shares of what was before that stay
POSITIVE = ("clipnorm", "clipvalue", "global_clipnorm", "loss_scale_factor")  # which would stop or turn learning
MOST = 2**31 - 1  # as TensorFlow counts rows, widths and steps
INTEGERS = {"embedding_dim": 1, "epochs": 1, "patience": 0, "batch_size": 1, "updates": 1, "patience_updates": 1}
BOOLEANS = ("upsample", "literal", "deterministic", "per_pair", "has_first_order", "listwise")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What decides a run's result, beside the data; stored in `run.json`, and as TOML wherever one likes.

    A part is its name, its import path `"package.module:function"` or the function itself; with options it is
    `("ple", {"num_experts": 4})`, in a file a table with the key `name`. See `tfmtr.components`. A recipe has copies of
    the dictionaries and lists that it is made of, and neither it nor they can be changed.

    Args:
        form: `"two_tower"`, which makes an index of titles; or `"ranking"`, whose logits see user and title
            together.
        encode: What happens to the features before sharing; in two-tower form `None` or `"fwfm"`, in ranking form
            `None`, `"fm"` or `"cross"`.
        share: A file of `tfmtr/sharing/`.
        head: A file of `tfmtr/heads/`.
        upsample: Whether the disjoint set of active users is trained on too.
        groups: `"given"`: the schema's scenarios; as controls `"one"`: all in one, `"random"`: as many groups, drawn
            by `seed`; or the territories' groups themselves, `{territory: group}`.
        units: Widths of the two towers' layers; ranking models have those of their sharing file.
        embedding_dim: Width of one categorical embedding.
        unknown_rate: Share of rows that train the default branch.
        literal: Whether to build the paper's literal score.
        dropout: Share of each hidden layer's outputs that a training step leaves out.
        l2: Factor of the sum of squares of kernels and embeddings, which is added to the losses.
        weight_decay: Share of kernels and embeddings that a step takes away, times the learning rate (AdamW).
        epochs: Most epochs over the training window.
        patience: Epochs without a better validation loss before training stops.
        updates: Most updates over the training window, in place of `epochs`.
        patience_updates: Updates without a better validation loss, rounded up to epochs, in place of `patience`.
        batch_size: Rows of one step.
        learning_rate: Of the optimizer; where a schedule starts.
        schedule: One of Keras's schedules of the learning rate with its options, as for a part: `cosine_decay` with
            `decay_steps` for example; it counts updates.
        clip_norm: Largest norm of an update's gradients, all together.
        seed: Of weights, order and dropped scenarios.
        deterministic: Whether TensorFlow's ops must be deterministic, so that a resumed run repeats an unbroken one.
        precision: `"float32"` or `"mixed_bfloat16"`; `None` for the process's dtype policy.
        balance: A file of `tfmtr/balancing/`, or `None` for the sum of the losses.
        optimizer: A file of `tfmtr/optimizers/`; the row-sparse ones are for large tables. With its option `use_ema`
            epochs are judged, kept and served with the moving averages of the weights.
        task_weights: `{task: factor of its loss}`; those of the data by default.
        row_weights: Name of a training-only number of the data (`Logs.training`) by which rows count; those without one
            count as 1.
        normalizer: `"rows"`: a loss is the mean over rows; `"groups"`: the sum of the scenarios' means, for the head
            `parallel`.
        per_pair: Whether a multi-task file of `tfmtr/sharing/` is made multi-domain: each pair of task and scenario is
            a task to it.
        has_first_order: Whether a linear model of the features is added to the logits; in ranking form only.
        listwise: Whether a two-tower model's lists are ordered by a list model, too: by what is popular, and what goes
            with the user's past; see `tfmtr.listwise`. Probabilities are the towers' own.

    Raises:
        ValueError: If a value is not what it must be, a part is unknown or has other options, or values make no sense
            together.

    Example:
    >>> recipe = Recipe(share=("ple", {"num_experts": 2}), l2=1e-5)
    >>> Recipe.from_toml(recipe.to_toml()) == recipe
    True
    """

    form: str = "two_tower"
    encode: Any = dataclasses.field(default=None, hash=False)
    share: Any = dataclasses.field(default="territory_branches", hash=False)
    head: Any = dataclasses.field(default="parallel", hash=False)
    upsample: bool = True
    groups: Literal["given", "one", "random"] | dict[str, str] = dataclasses.field(default="given", hash=False)
    units: tuple[int, ...] = (512, 512)
    embedding_dim: int = 16
    unknown_rate: float = 0.05
    literal: bool = False
    dropout: float = 0.0
    l2: float = 0.0
    weight_decay: float = 0.0
    epochs: int = 10
    patience: int = 2
    updates: int | None = None
    patience_updates: int | None = None
    batch_size: int = 8192
    learning_rate: float = 1e-3
    schedule: Any = dataclasses.field(default=None, hash=False)
    clip_norm: float | None = None
    seed: int = 0
    deterministic: bool = True
    precision: str | None = None
    balance: Any = dataclasses.field(default=None, hash=False)
    optimizer: Any = dataclasses.field(default="adam", hash=False)
    task_weights: dict[str, float] | None = dataclasses.field(default=None, hash=False)
    row_weights: str | None = None
    normalizer: Literal["rows", "groups"] = "rows"
    per_pair: bool = False
    has_first_order: bool = False
    listwise: bool = True

    def __post_init__(self) -> None:
        if self.form in LATER_FORMS:
            raise ValueError(
                f"`form` must be one of {list(FORMS)}: {self.form} is not built yet. Received: {self.form!r}"
            )
        check_choice("form", self.form, FORMS)
        checked: dict[str, Any] = {}
        for argument, folder in PARTS.items():
            if (part := getattr(self, argument)) is not None or argument in ("share", "head", "optimizer"):
                components.check_part(folder, part)
                checked[argument] = components.stored(folder, part)
        checked["encode"], checked["schedule"] = _encoder(self.form, self.encode), _schedule(self)
        check_choice("normalizer", self.normalizer, ("rows", "groups"))
        if self.normalizer == "groups" and checked["head"] != "parallel":
            raise ValueError(f'`normalizer="groups"` is for the head `parallel`. Received: head={self.head!r}')
        if not isinstance(self.groups, Mapping):
            check_choice("groups", self.groups, ("given", "one", "random"))
        elif not self.groups or not all(isinstance(text, str) for pair in self.groups.items() for text in pair):
            raise ValueError(f"`groups` must map territories to groups, both text. Received: groups={self.groups!r}")
        checked["groups"] = self.groups
        checked["units"] = check_widths("units", self.units)
        check_integer("units", max(checked["units"]), least=1, most=MOST)
        for name, least in INTEGERS.items():
            if getattr(self, name) is not None or name not in OPTIONAL:
                checked[name] = check_integer(name, getattr(self, name), least=least, most=MOST)
        checked["seed"] = check_integer("seed", self.seed, least=0, most=2**32 - 1)
        checked["learning_rate"] = check_number("learning_rate", self.learning_rate, above=0)
        for name in ("unknown_rate", "dropout"):
            checked[name] = check_number(name, getattr(self, name), least=0, below=1)
        for name in ("l2", "weight_decay"):
            checked[name] = check_number(name, getattr(self, name), least=0)
        if self.clip_norm is not None:
            checked["clip_norm"] = check_number("clip_norm", self.clip_norm, above=0)
        if self.precision is not None:
            check_choice("precision", self.precision, POLICIES)
        if self.task_weights is not None:
            is_table = isinstance(self.task_weights, Mapping) and all(
                isinstance(task, str) for task in self.task_weights
            )
            if not is_table or not self.task_weights:
                raise ValueError(
                    "`task_weights` must be factors of tasks' losses, {task: number}. Received: "
                    f"task_weights={self.task_weights!r}"
                )
            weights = {t: check_number(f"task_weights.{t}", w, least=0) for t, w in self.task_weights.items()}
            checked["task_weights"] = weights
        if self.row_weights is not None and (not isinstance(self.row_weights, str) or not self.row_weights):
            raise ValueError(f"`row_weights` must be the name of a feature. Received: row_weights={self.row_weights!r}")
        for name in BOOLEANS:
            check_boolean(name, getattr(self, name))
        for name, value in checked.items():
            object.__setattr__(self, name, read_only(value))  # tuples and plain numbers, as JSON has them
        self._check_together()

    def _check_together(self) -> None:
        """Raises a `ValueError` if values make no sense together."""
        for budget, epochs in (("updates", "epochs"), ("patience_updates", "patience")):
            if getattr(self, budget) is not None and getattr(self, epochs) != DEFAULTS[epochs]:
                raise ValueError(
                    f"`{epochs}` must be left out where `{budget}` stands in its place. Received: "
                    f"{epochs}={getattr(self, epochs)}, {budget}={getattr(self, budget)}"
                )
        if self.form == "two_tower" and self.encode:
            for name in ("units", "unknown_rate"):
                if getattr(self, name) != DEFAULTS[name]:
                    raise ValueError(
                        f"`{name}` must be left out where `encode=fwfm`, which has no such layers. Received: "
                        f"{name}={getattr(self, name)!r}"
                    )
        if self.form != "two_tower":
            for name in ("units", "literal"):
                if getattr(self, name) != DEFAULTS[name]:
                    raise ValueError(
                        f"`{name}` must be left out unless `form=two_tower`; a ranking model has the layers of its "
                        f"sharing file. Received: {name}={getattr(self, name)!r}, form={self.form!r}"
                    )
        elif self.has_first_order:
            raise ValueError(
                "`has_first_order` must be left out unless `form=ranking`; a two-tower model's index knows vectors "
                f"alone. Received: has_first_order={self.has_first_order}, form={self.form!r}"
            )
        if self.form == "two_tower" and self.encode and (self.share != "none" or self.literal or self.dropout):
            raise ValueError(
                "`encode=fwfm` is a two-tower model of its own, whose tasks share their embeddings: it needs "
                f"share=none without `literal` and `dropout`. Received: share={self.share!r}, "
                f"literal={self.literal}, dropout={self.dropout}"
            )
        if self.form != "two_tower" and components.is_two_tower_only(self.head):
            raise ValueError(
                "`head` must be another one unless `form=two_tower`: this one compares a row's query with the titles "
                f"of other rows, which a ranking model does not have. Received: head={self.head!r}, form={self.form!r}"
            )
        if self.per_pair:
            components.check_pairable(self.share)
        if self.literal and (width := components.tower_width(self.share)) not in (None, self.units[-1]):
            raise ValueError(
                "`literal` has no layer between the towers of `share` and the dot product, so the last of `units` must "
                f"be as wide as they are. Received: units={self.units!r} and share={self.share!r} of width {width}"
            )
        is_bilevel = self.balance is not None and components.parse("balancing", self.balance)[0] == "bilevel"
        if is_bilevel and not components.has_word("sharing", self.share, "FusionWeight"):
            raise ValueError(
                "`balance=bilevel` alternates between network and fusion weights: it needs a system that has them, as "
                f"share=m3oe. Received: share={self.share!r}"
            )
        options = self.optimizer[1] if isinstance(self.optimizer, tuple) else {}
        for name in set(RATES) & set(options):
            check_number(f"optimizer.{name}", options[name], least=0, below=1)
        twice = {"weight_decay": self.weight_decay, "global_clipnorm": self.clip_norm, "l2": self.l2}
        for name in options:
            if twice.get(name):
                raise ValueError(
                    f"`optimizer.{name}` must be left out where the recipe has it. Received: {twice[name]}"
                )
        if options:  # last, as it imports Keras
            try:
                components.find("optimizers", self.optimizer)(self.learning_rate, **self._of_optimizer())
            except (TypeError, ValueError) as error:
                text = " ".join(str(error).split())
                raise ValueError(
                    f"`optimizer={self.optimizer[0]}` must have values that it takes: {text} Received: {dict(options)}"
                ) from None
            for name, value in options.items():  # those of no sense that Keras takes
                if isinstance(value, float | int) and not isinstance(value, bool):
                    check_number(f"optimizer.{name}", value, **({"above": 0} if name in POSITIVE else {"least": 0}))

    def document(self) -> dict[str, Any]:
        """The recipe as `run.json` and a TOML file store it; what is the default and is of a newer version is left out.

        Raises:
            ValueError: If a part is a function that has no import path, which a document cannot hold.
        """
        document = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in STORED_AS_TABLES:
                value = _as_table(field.name, value)
            if field.name in FIRST or value != field.default:
                document[field.name] = value
        try:
            return json.loads(json.dumps(document))
        except TypeError as error:
            raise ValueError(f"A recipe must have options that a file can hold to be stored: {error}") from None

    def to_toml(self) -> str:
        """The recipe as the text of a TOML file: what is not the default.

        Raises:
            ValueError: As for `document`, or if an option of a part is `None`.
        """
        document = self.document()
        defaults = Recipe().document()
        try:
            return tomli_w.dumps({name: value for name, value in document.items() if defaults.get(name) != value})
        except TypeError:
            raise ValueError(
                "A recipe must have no option that is None to be written as TOML, which has no word for it: leave the "
                f"option out. Received: {self}"
            ) from None

    @classmethod
    def from_toml(cls, text: str, changes: Mapping[str, Any] | None = None) -> "Recipe":
        """The recipe of a TOML file's text.

        Args:
            text: The text.
            changes: `{key: value}` that come after it; a key `"share.num_experts"` is an option of a part.

        Raises:
            ValueError: If the text is no TOML, or has a key that a recipe does not have.
        """
        if not isinstance(text, str):
            raise ValueError(f"`text` must be TOML; `Recipe.load` reads a file. Received: text={text!r}")
        try:
            document = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise ValueError(f"A recipe must be a TOML file: {error}") from None
        return cls.from_document(document, changes)

    @classmethod
    def from_document(cls, document: Mapping[str, Any], changes: Mapping[str, Any] | None = None) -> "Recipe":
        """The recipe of a dictionary as `document` makes it.

        Args:
            document: The dictionary.
            changes: As for `from_toml`.

        Raises:
            ValueError: If it is no such dictionary, or has a key that a recipe does not have.
        """
        if not isinstance(document, Mapping) or not all(isinstance(key, str) for key in document):
            raise ValueError(f"A recipe must be a table of keys and values. Received: {document!r}")
        if changes is not None and (not isinstance(changes, Mapping) or not all(isinstance(k, str) for k in changes)):
            raise ValueError(f"`changes` must be {{key: value}}. Received: changes={changes!r}")
        document = dict(document)
        for key, value in (changes or {}).items():
            _change(document, key, value)
        if unknown := sorted(set(document) - set(DEFAULTS)):
            raise ValueError(
                f"A recipe must have keys of {sorted(DEFAULTS)}.{nearest(unknown[0], DEFAULTS)} "
                f"Received: {unknown[0]!r}"
            )
        return cls(**document)

    @classmethod
    def load(cls, file: str | Path, changes: Mapping[str, Any] | None = None) -> "Recipe":
        """The recipe of a TOML file; see `from_toml`."""
        try:
            text = Path(file).read_text(encoding="utf-8-sig")  # with the mark that some editors write, or without
        except (OSError, TypeError, ValueError) as error:  # of bytes that are no text, too
            raise ValueError(f"`recipe` must be a TOML file that can be read. Received: {file} ({error})") from None
        try:
            return cls.from_toml(text, changes)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None

    def adapt(self, schema: Schema) -> Schema:
        """The schema with this recipe's scenarios and weights, and the features that its head reads in training.

        Raises:
            ValueError: If the recipe names a territory, task or feature that the data do not have.
        """
        head = components.find("heads", self.head)(schema.tasks)
        if not hasattr(head, "complete"):
            raise ValueError(f"`head` must be a function that returns a `Head`. Received: {self.head!r}, {head!r}")
        schema = head.complete(schema)
        if self.task_weights is not None:
            tasks = [task.name for task in schema.tasks]
            for name in self.task_weights:
                check_choice("task_weights", name, tasks)
            schema = schema.replace(
                tasks=[
                    dataclasses.replace(task, weight=self.task_weights.get(task.name, task.weight))
                    for task in schema.tasks
                ]
            )
            if not any(task.weight for task in schema.tasks):
                raise ValueError(
                    "`task_weights` must leave a task that is trained: one whose factor is not 0. Received: "
                    f"task_weights={self.task_weights}"
                )
        if self.row_weights is not None:
            numbers = [feature.name for feature in schema.by_role(TRAINING) if feature.kind == "number"]
            if not numbers:
                raise ValueError(
                    "`row_weights` must be a training-only number, and the data have none: name its column to "
                    "`tfmtr prepare` with `--training`, which is `Logs.training`. Received: "
                    f"row_weights={self.row_weights!r}"
                )
            check_choice("row_weights", self.row_weights, numbers)
        scenario = schema.scenario
        if self.groups == "one":
            scenario = Scenario(scenario.columns, dict.fromkeys(scenario.groups, "all"))
        elif self.groups == "random":
            from tfmtr.datasets.groups import random_groups

            scenario = Scenario(scenario.columns, random_groups(scenario.groups, scenario.num_groups, self.seed))
        elif self.groups != "given":
            names = ["/".join(key) for key in scenario.groups]
            if missing := sorted(set(names) - set(self.groups)):
                raise ValueError(f"`groups` must have every territory of the data. Received: none for {missing}")
            groups = [self.groups[name] for name in names]
            scenario = Scenario(scenario.columns, dict(zip(scenario.groups, groups, strict=True)))
        return schema.replace(scenario=scenario)

    def build(self, schema: Schema) -> "JointModel":
        """The compiled model of this recipe, with seeded weights."""
        import keras  # a recipe is made, read and checked without TensorFlow, as far as its parts are

        from tfmtr import models

        keras.utils.set_random_seed(self.seed)
        head = self.head
        if self.normalizer == "groups":
            head = ("parallel", {"normalizer": "groups", "num_groups": schema.scenario.num_groups})
        options = {
            "share": self.share,
            "head": head,
            "per_pair": self.per_pair,
            "embedding_dim": self.embedding_dim,
            "unknown_rate": self.unknown_rate,
            "dropout": self.dropout,
            "encode": self.encode,
        }
        if self.form == "two_tower":
            model = models.two_tower(schema, **options, units=self.units, literal=self.literal)
        else:
            model = models.ranking(schema, **options, has_first_order=self.has_first_order)
        if self.l2:
            models.add_l2(model, self.l2)
        model.compile(self.make_optimizer(model), balance=self.balance)
        return model

    def make_optimizer(self, model: "JointModel") -> Any:
        """The optimizer of a model, with schedule, decay and clipping."""
        import keras

        from tfmtr import models

        rate = self.learning_rate
        if self.schedule is not None:
            name, options = self.schedule
            rate = getattr(keras.optimizers.schedules, _camel(name))(**_start(name, rate), **options)
        optimizer = components.find("optimizers", self.optimizer)(rate, **self._of_optimizer())
        if self.weight_decay:
            weights = {id(variable) for variable in models.kernels(model)}
            others = [variable for variable in model.trainable_variables if id(variable) not in weights]
            optimizer.exclude_from_weight_decay(var_list=others)
        return optimizer

    def _of_optimizer(self) -> dict[str, float]:
        """Options of the optimizer that are fields of the recipe."""
        options = {"weight_decay": self.weight_decay or None, "global_clipnorm": self.clip_norm}
        return {name: value for name, value in options.items() if value is not None}

    def epochs_of(self, steps: int) -> int:
        """Most epochs, where an epoch has so many steps."""
        return self.epochs if self.updates is None else math.ceil(self.updates / steps)

    def patience_of(self, steps: int) -> int:
        """Epochs without a better validation loss, where an epoch has so many steps."""
        return self.patience if self.patience_updates is None else math.ceil(self.patience_updates / steps)


DEFAULTS = {field.name: field.default for field in dataclasses.fields(Recipe)}
OPTIONAL = {name for name, value in DEFAULTS.items() if value is None}
STORED_AS_TABLES = ("encode", "schedule", *PARTS)
# What the first version stored of every recipe: later fields are in a document where they are not the default.
FIRST = (
    "share", "head", "upsample", "groups", "units", "embedding_dim", "unknown_rate", "literal", "epochs", "patience",
    "batch_size", "learning_rate", "seed", "deterministic", "listwise",
)  # fmt: skip

# Options whose defaults are others since runs are of format 3 and searches of format 2: what they were before.
FORMER_DEFAULTS = {
    "share": dict.fromkeys(
        ("adatt", "cross_stitch", "mmoe", "ple", "shared_bottom", "snr"), MappingProxyType({"normalize": True})
    ),
    "balance": {"fair_grad": {"weighs_own": True}, "metabalance": {"strategy": "reduce"}},
}


def with_former_defaults(document: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's document of before some parts had other defaults, in which these parts now say what they meant.

    >>> with_former_defaults({"share": {"name": "ple", "num_experts": 2}, "l2": 0.1})
    {'share': {'name': 'ple', 'normalize': True, 'num_experts': 2}, 'l2': 0.1}
    """
    told = dict(document)
    for field, parts in FORMER_DEFAULTS.items():
        part = document.get(field)
        table = part if isinstance(part, Mapping) else {components.NAME: part}
        name = table.get(components.NAME)
        for known, options in parts.items():
            if name in (known, f"tfmtr.{PARTS[field]}.{known}:{known}"):
                told[field] = {components.NAME: name, **options, **table}
    return told


def option_texts() -> dict[str, str]:
    """`{field: what the class says of it}`, without marks: the help of the command's options.

    >>> option_texts()["batch_size"]
    'Rows of one step.'
    """
    section = (inspect.getdoc(Recipe) or "").partition("Args:\n")[2].partition("\n\n")[0]
    found = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section, flags=re.MULTILINE)
    return {name: " ".join(text.replace("`", "").split()) for name, text in found}


def optimizer_of(name: str) -> Any:
    """The class of an optimizer's name, of the file `tfmtr/optimizers/<name>.py`."""
    return components.find("optimizers", name)


def as_toml(value: Any) -> str:
    """An option's value as `parse_change` reads it.

    >>> as_toml((64, 32)), as_toml("erf"), as_toml({"a": True, "b": "4"})
    ('[64, 32]', 'erf', '{a = true, b = "4"}')
    """

    def text(value: Any) -> str:
        if isinstance(value, (tuple, list)):
            return f"[{', '.join(map(text, value))}]"
        if isinstance(value, Mapping):
            items = ((name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else text(name), value[name]) for name in value)
            return f"{{{', '.join(f'{name} = {text(item)}' for name, item in items)}}}"
        return json.dumps(value, ensure_ascii=False)

    return value if isinstance(value, str) and parse_change(f"x={value}")[1] == value else text(value)


def parse_change(text: str) -> tuple[str, Any]:
    """`"share.num_experts=4"` as `("share.num_experts", 4)`: values as TOML has them, and words without quotes.

    `True` and `False` may be written as in Python, and numbers without a nought before or after the point. What a
    recipe may be without is `none`, which takes a file's value back.

    Raises:
        ValueError: If the text is no pair, or more than one.

    Example:
    >>> parse_change("share.units=[64, 32]"), parse_change("share=ple"), parse_change("balance=none")
    (('share.units', [64, 32]), ('share', 'ple'), ('balance', None))
    """
    key, equals, value = (part.strip() for part in text.partition("="))
    if not all(key.split(".")) or not equals or not value:
        raise ValueError(f"`--set` must be key=value, such as share.num_experts=4. Received: {text!r}")
    if key in OPTIONAL and value.lower() == "none":
        return key, None
    try:
        document = tomllib.loads(f"value = {value}")
    except (tomllib.TOMLDecodeError, RecursionError):
        if value.lower() in ("true", "false"):
            return key, value.lower() == "true"
        return key, float(value) if re.fullmatch(r"[+-]?(\d+\.|\.\d+)([eE][+-]?\d+)?", value) else value
    if len(document) > 1:
        raise ValueError(f"`--set` must be one key=value; repeat it for more. Received: {text!r}")
    return key, document["value"]


def parse_changes(texts: Iterable[str]) -> dict[str, Any]:
    """Several changes, in their order: `{key: value}`.

    Raises:
        ValueError: If one is no pair, a key comes twice, or a part comes after its own options, which it would undo.

    Example:
    >>> parse_changes(["share=ple", "share.num_experts=4"])
    {'share': 'ple', 'share.num_experts': 4}
    """
    changes: dict[str, Any] = {}
    for key, value in map(parse_change, texts):
        undone = [other for other in changes if other == key or other.startswith(f"{key}.")]
        if undone:
            raise ValueError(
                f"`--set` must name each key once, and a part before its options. Received: {undone[0]}, and then "
                f"{key}={value!r}"
            )
        changes[key] = value
    return changes


def _change(document: dict[str, Any], key: str, value: Any) -> None:
    """Sets a key, or an option of a part, in a document."""
    name, _, option = key.partition(".")
    if option == components.NAME and name in STORED_AS_TABLES:
        raise ValueError(f"`--set {name}=...` says which part `{name}` is. Received: {key}={value!r}")
    if not option:
        document[name] = value
        return
    part = document.get(name, DEFAULTS.get(name))
    if name in ("task_weights", "groups"):
        document[name] = {**(part if isinstance(part, Mapping) else {}), option: value}
    elif name not in STORED_AS_TABLES:
        raise ValueError(
            f"`--set` must name a part before a dot: one of {sorted(STORED_AS_TABLES)}."
            f"{nearest(name, STORED_AS_TABLES)} Received: {key}={value!r}"
        )
    elif part is None:
        raise ValueError(
            f"`{name}` must be there before it has options: `--set {name}=...` says which. Received: {key}={value!r}"
        )
    else:
        table = _as_table(name, part)
        document[name] = {**({components.NAME: table} if isinstance(table, str) else table), option: value}


def _as_table(name: str, part: Any) -> Any:
    """What stands for a part as a file has it: its name, or a table."""
    if part is None or isinstance(part, (str, Mapping)):
        return part
    function, options = part if isinstance(part, (tuple, list)) else (part, {})
    if callable(function):
        raise ValueError(
            f"`{name}` must be a name, or a function that others can import, to be stored in run.json, from which the "
            f"run is loaded again: write it into a module. Received: {name}={function!r}"
        )
    return {components.NAME: function, **options}


def _encoder(form: str, encode: Any) -> Any:
    """What stands for the encoder."""
    if encode is None:
        return None
    if form == "two_tower":
        name, options = components.parse(ENCODERS, encode)
        check_choice("encode", name, ("fwfm",), of=" of form=two_tower")
        if options:
            raise ValueError(f"Options of `encode=fwfm` must be left out: there are none. Received: {dict(options)}")
        return name
    components.check_part(ENCODERS, encode)
    return components.stored(ENCODERS, encode)


def _schedule(recipe: Recipe) -> tuple[str, dict[str, Any]] | None:
    """What stands for the schedule: `(name, options)`, which Keras takes."""
    if recipe.schedule is None:
        return None
    name, options = recipe.schedule, {}
    if not isinstance(name, str):
        name, options = components.parse("optimizers", recipe.schedule, argument="schedule")
    check_choice("schedule", name, SCHEDULES)
    name = str(name)
    if name == LISTED and recipe.learning_rate != DEFAULTS["learning_rate"]:
        raise ValueError(
            f"`learning_rate` must be left out with `schedule={name}`, whose `values` are all rates. Received: "
            f"learning_rate={recipe.learning_rate}"
        )
    keras_name, start = f"keras.optimizers.schedules.{_camel(name)}", _start(name, recipe.learning_rate)
    try:
        if taken := set(start) & set(options):
            raise ValueError(f"`{taken.pop()}` must be left out: that is the recipe's `learning_rate`")
        _check_names(_camel(name), {**start, **options})
        _check_numbers(options)
        import keras

        getattr(keras.optimizers.schedules, _camel(name))(**start, **options)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`schedule={name}` must have the options of {keras_name}: {error}. Received: {options}"
        ) from None
    return name, options


def _check_names(schedule: str, options: Mapping[str, Any]) -> None:
    """Raises a `TypeError` unless a schedule of Keras can be made with these options; Keras is not imported for it."""
    with contextlib.suppress(declared.UnreadableError):
        own = next(declared.constructors("keras.optimizers.schedules", schedule))
        inspect.Signature(own[1:]).bind(**options)


def _check_numbers(options: Mapping[str, Any]) -> None:
    """Raises a `ValueError` for options of a schedule that Keras takes, and then trains with rates of no sense."""
    for key, value in options.items():
        if key in ("staircase", "cycle"):
            check_boolean(key, value)
            continue
        for number in value if isinstance(value, tuple) and key in ("boundaries", "values") else (value,):
            if number is not None and key != "name":
                check_number(key, number, **({"above": 0} if key == "decay_steps" else {"least": 0}))
    boundaries = options.get("boundaries", ())
    if list(boundaries) != sorted(set(boundaries)):
        raise ValueError("`boundaries` must grow")
    if options.get("warmup_steps") and options.get("warmup_target") is None:
        raise ValueError("`warmup_steps` must have a `warmup_target`; Keras leaves the warm-up out without one")


def _start(name: str, rate: float) -> dict[str, float]:
    """What a schedule is given of the learning rate: where it starts, but for one that lists all rates."""
    return {} if name == LISTED else {"initial_learning_rate": rate}


def _camel(name: str) -> str:
    return name.title().replace("_", "")
