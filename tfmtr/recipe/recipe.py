"""The recipe: what decides a run's result, beside the data."""

import dataclasses
import inspect
import json
import math
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tomli_w

from tfmtr.checks import nearest
from tfmtr.read_only import read_only
from tfmtr.recipe.checking import check_together, checked_values
from tfmtr.recipe.making import adapted, build
from tfmtr.recipe.optimizing import make_optimizer
from tfmtr.recipe.part_names import STORED_AS_TABLES, as_table
from tfmtr.schema import Schema

if TYPE_CHECKING:
    from tfmtr.models import JointModel


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
            by `seed`; `"territories"`: each territory is a scenario, whose parent is its group; or the territories'
            groups themselves, `{territory: group}`.
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
        debias: A file of `tfmtr/debiasing/`, what is done about popularity bias, or `None`. Lists are then ordered by
            the towers alone, without a list model.
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
    groups: Literal["given", "one", "random", "territories"] | dict[str, str] = dataclasses.field(
        default="given", hash=False
    )
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
    debias: Any = dataclasses.field(default=None, hash=False)
    optimizer: Any = dataclasses.field(default="adam", hash=False)
    task_weights: dict[str, float] | None = dataclasses.field(default=None, hash=False)
    row_weights: str | None = None
    normalizer: Literal["rows", "groups"] = "rows"
    per_pair: bool = False
    has_first_order: bool = False
    listwise: bool = True

    def __post_init__(self) -> None:
        for name, value in checked_values(self).items():
            object.__setattr__(self, name, read_only(value))  # tuples and plain numbers, as JSON has them
        check_together(self)

    def document(self) -> dict[str, Any]:
        """The recipe as `run.json` and a TOML file store it; what is the default and is of a newer version is left out.

        Raises:
            ValueError: If a part is a function that has no import path, which a document cannot hold.
        """
        document = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in STORED_AS_TABLES:
                value = as_table(field.name, value)
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
        from tfmtr.recipe.changes import change  # which asks for a recipe's defaults

        document = dict(document)
        for key, value in (changes or {}).items():
            change(document, key, value)
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
        return adapted(self, schema)

    def build(self, schema: Schema) -> "JointModel":
        """The compiled model of this recipe, with seeded weights."""
        return build(self, schema)

    def make_optimizer(self, model: "JointModel") -> Any:
        """The optimizer of a model, with schedule, decay and clipping."""
        return make_optimizer(self, model)

    def epochs_of(self, steps: int) -> int:
        """Most epochs, where an epoch has so many steps."""
        return self.epochs if self.updates is None else math.ceil(self.updates / steps)

    def patience_of(self, steps: int) -> int:
        """Epochs without a better validation loss, where an epoch has so many steps."""
        return self.patience if self.patience_updates is None else math.ceil(self.patience_updates / steps)


DEFAULTS = {field.name: field.default for field in dataclasses.fields(Recipe)}
OPTIONAL = {name for name, value in DEFAULTS.items() if value is None}
# What the first version stored of every recipe: later fields are in a document where they are not the default.
FIRST = (
    "share", "head", "upsample", "groups", "units", "embedding_dim", "unknown_rate", "literal", "epochs", "patience",
    "batch_size", "learning_rate", "seed", "deterministic", "listwise",
)  # fmt: skip


def option_texts() -> dict[str, str]:
    """`{field: what the class says of it}`, without marks: the help of the command's options.

    >>> option_texts()["batch_size"]
    'Rows of one step.'
    """
    section = (inspect.getdoc(Recipe) or "").partition("Args:\n")[2].partition("\n\n")[0]
    fields = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section, flags=re.MULTILINE)
    return {name: " ".join(text.replace("`", "").split()) for name, text in fields}
