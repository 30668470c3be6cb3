"""What decides a run's result, beside the data: the recipe that a run directory stores."""

import dataclasses
import functools
import importlib
import json
from typing import Literal

import keras

from tfmtr import components, models
from tfmtr.checks import check_boolean, check_integer, check_number, check_widths
from tfmtr.datasets.groups import random_groups
from tfmtr.heads.parallel import parallel
from tfmtr.schema import Scenario, check_choice
from tfmtr.sharing._shared import per_pair

OPTIMIZERS = ("adam", "sparse_adam", "row_wise_adagrad", "clippy_adagrad")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What decides a run's result, beside the data; stored in `run.json`.

    Args:
        share: Name of a file in `tfmtr/sharing/`.
        head: Name of a file in `tfmtr/heads/`.
        upsample: Whether the disjoint set of active users is trained on too.
        groups: `"given"`: the schema's scenarios; as controls `"one"`: all in one, `"random"`: as many groups, drawn
            by `seed`; or the territories' groups themselves, `{territory: group}`.
        units: Widths of the towers' layers.
        embedding_dim: Width of one categorical embedding.
        unknown_rate: Share of rows that train the default branch.
        literal: Whether to build the paper's literal score.
        epochs: Most epochs over the training window.
        patience: Epochs without a better validation loss before training stops.
        batch_size: Rows of one step.
        learning_rate: Of Adam.
        seed: Of weights, order and dropped scenarios.
        deterministic: Whether TensorFlow's ops must be deterministic, so that a resumed run repeats an unbroken one.
        balance: Name of a file in `tfmtr/balancing/`, or `None` for the sum of the losses.
        optimizer: One of `OPTIMIZERS`; the row-sparse ones are for large tables.
        normalizer: `"rows"`: a loss is the mean over rows; `"groups"`: the sum of the scenarios' means, for the head
            `parallel`.
        per_pair: Whether a multi-task file of `tfmtr/sharing/` is made multi-domain: each pair of task and scenario is
            a task to it.

    Raises:
        ValueError: If a value is not what it must be, a part is unknown, or has an option without a default.
    """

    share: str = "territory_branches"
    head: str = "parallel"
    upsample: bool = True
    groups: Literal["given", "one", "random"] | dict[str, str] = dataclasses.field(default="given", hash=False)
    units: tuple[int, ...] = (512, 512)
    embedding_dim: int = 16
    unknown_rate: float = 0.05
    literal: bool = False
    epochs: int = 10
    patience: int = 2
    batch_size: int = 8192
    learning_rate: float = 1e-3
    seed: int = 0
    deterministic: bool = True
    balance: str | None = None
    optimizer: str = "adam"
    normalizer: Literal["rows", "groups"] = "rows"
    per_pair: bool = False

    def __post_init__(self):
        components.check_options("sharing", self.share)
        components.check_options("heads", self.head)
        if self.balance is not None:
            components.check_options("balancing", self.balance)
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_choice("normalizer", self.normalizer, ("rows", "groups"))
        if self.normalizer == "groups" and self.head != "parallel":
            raise ValueError(f'`normalizer="groups"` is for the head `parallel`. Received: head={self.head!r}')
        if not isinstance(self.groups, dict):
            check_choice("groups", self.groups, ("given", "one", "random"))
        elif not all(isinstance(text, str) for pair in self.groups.items() for text in pair):
            raise ValueError(f"`groups` must map territories to groups, both text. Received: groups={self.groups!r}")
        checked = {"units": check_widths("units", self.units)}
        for name, least in {"embedding_dim": 1, "epochs": 1, "patience": 0, "batch_size": 1}.items():
            checked[name] = check_integer(name, getattr(self, name), least=least)
        checked["seed"] = check_integer("seed", self.seed, least=0, most=2**32 - 1)
        checked["learning_rate"] = check_number("learning_rate", self.learning_rate, above=0)
        checked["unknown_rate"] = check_number("unknown_rate", self.unknown_rate, least=0, below=1)
        for name in ("upsample", "literal", "deterministic", "per_pair"):
            check_boolean(name, getattr(self, name))
        for name, value in checked.items():
            object.__setattr__(self, name, value)  # tuples and plain numbers, as JSON has them

    def document(self):
        """The recipe as it is stored; what it could not say earlier is left out while it is the default.

        Raises:
            ValueError: If `share`, `head` or `balance` is a function, which a document cannot hold.
        """
        for name in ("share", "head", "balance"):
            if callable(part := getattr(self, name)):
                raise ValueError(
                    f"`{name}` must be a name to be stored in run.json, from which the run is loaded again; train a "
                    f"function of your own with `tfmtr.models.two_tower` and `fit`. Received: {name}={part!r}"
                )
        document = json.loads(json.dumps(dataclasses.asdict(self)))
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        later = ("balance", "optimizer", "normalizer", "per_pair")
        return {name: value for name, value in document.items() if name not in later or value != defaults[name]}

    def adapt(self, schema):
        """The schema with this recipe's scenarios and the features that its head reads in training."""
        schema = components.find("heads", self.head)(schema.tasks).complete(schema)
        scenario = schema.scenario
        if self.groups == "one":
            scenario = Scenario(scenario.columns, dict.fromkeys(scenario.groups, "all"))
        elif self.groups == "random":
            scenario = Scenario(scenario.columns, random_groups(scenario.groups, scenario.num_groups, self.seed))
        elif self.groups != "given":
            names = ["/".join(key) for key in scenario.groups]
            if missing := sorted(set(names) - set(self.groups)):
                raise ValueError(f"`groups` must have every territory of the data. Received: none for {missing}")
            groups = [self.groups[name] for name in names]
            scenario = Scenario(scenario.columns, dict(zip(scenario.groups, groups, strict=True)))
        return schema.replace(scenario=scenario)

    def build(self, schema):
        """The compiled model of this recipe, with seeded weights."""
        keras.utils.set_random_seed(self.seed)
        head, share = self.head, components.find("sharing", self.share)
        if self.normalizer == "groups":
            head = functools.partial(parallel, normalizer="groups", num_groups=schema.scenario.num_groups)
        model = models.two_tower(
            schema,
            share=per_pair(share) if self.per_pair else share,
            head=head,
            units=self.units,
            embedding_dim=self.embedding_dim,
            unknown_rate=self.unknown_rate,
            literal=self.literal,
        )
        model.compile(optimizer_of(self.optimizer)(self.learning_rate), balance=self.balance)
        model.optimizer.build(model.trainable_variables)
        return model


def optimizer_of(name):
    """The class of an optimizer's name: Keras's Adam, or the one class of the file `tfmtr/optimizers/<name>.py`."""
    if name == "adam":
        return keras.optimizers.Adam
    module = importlib.import_module(f"tfmtr.optimizers.{name}")
    return getattr(module, name.title().replace("_", ""))


# The three models of Gampa et al. 2023, section 4.2, and the controls that a gain of branches is compared with.
PAPER = {
    "baseline": Recipe(share="none", upsample=False),
    "baseline + upsampling": Recipe(share="none"),
    "multi-task": Recipe(share="territory_branches"),
}
CONTROLS = {
    "one group": Recipe(share="territory_branches", groups="one"),
    "random groups": Recipe(share="territory_branches", groups="random"),
}
