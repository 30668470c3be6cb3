"""From a recipe and a schema to a compiled model."""

import dataclasses
from typing import TYPE_CHECKING

from tfmtr import components
from tfmtr.checks import check_choice
from tfmtr.recipe.optimizing import make_optimizer
from tfmtr.schema import TRAINING, Scenario, Schema

if TYPE_CHECKING:
    from tfmtr.models import JointModel
    from tfmtr.recipe.recipe import Recipe


def adapted(recipe: "Recipe", schema: Schema) -> Schema:
    """What `Recipe.adapt` returns."""
    from tfmtr.debiasing._debiased import debiased  # heads import Keras

    head = components.find("heads", recipe.head)(schema.tasks)
    if not hasattr(head, "complete"):
        raise ValueError(f"`head` must be a function that returns a `Head`. Received: {recipe.head!r}, {head!r}")
    schema = debiased(head, recipe.debias, schema.tasks).complete(schema)
    if recipe.form == "two_tower":
        schema = schema.replace(features=[feature for feature in schema.features if feature not in schema.counters])
    if recipe.task_weights is not None:
        tasks = [task.name for task in schema.tasks]
        for name in recipe.task_weights:
            check_choice("task_weights", name, tasks)
        schema = schema.replace(
            tasks=[
                dataclasses.replace(task, weight=recipe.task_weights.get(task.name, task.weight))
                for task in schema.tasks
            ]
        )
        if not any(task.weight for task in schema.tasks):
            raise ValueError(
                "`task_weights` must leave a task that is trained: one whose factor is not 0. Received: "
                f"task_weights={recipe.task_weights}"
            )
    if recipe.row_weights is not None:
        numbers = [feature.name for feature in schema.by_role(TRAINING) if feature.kind == "number"]
        if not numbers:
            raise ValueError(
                "`row_weights` must be a training-only number, and the data have none: name its column to "
                "`tfmtr prepare` with `--training`, which is `Logs.training`. Received: "
                f"row_weights={recipe.row_weights!r}"
            )
        check_choice("row_weights", recipe.row_weights, numbers)
    scenario = schema.scenario
    if recipe.groups == "one":
        scenario = Scenario(scenario.columns, dict.fromkeys(scenario.groups, "all"))
    elif recipe.groups == "random":
        from tfmtr.datasets.groups import random_groups

        scenario = Scenario(scenario.columns, random_groups(scenario.groups, scenario.num_groups, recipe.seed))
    elif recipe.groups == "territories":
        names = {key: "/".join(key) for key in scenario.groups}
        parents = {names[key]: group for key, group in scenario.groups.items()}
        scenario = Scenario(scenario.columns, names, parents=parents)
    elif recipe.groups != "given":
        names = ["/".join(key) for key in scenario.groups]
        if missing := sorted(set(names) - set(recipe.groups)):
            raise ValueError(f"`groups` must have every territory of the data. Received: none for {missing}")
        groups = [recipe.groups[name] for name in names]
        scenario = Scenario(scenario.columns, dict(zip(scenario.groups, groups, strict=True)))
    return schema.replace(scenario=scenario)


def build(recipe: "Recipe", schema: Schema) -> "JointModel":
    """What `Recipe.build` returns."""
    import keras  # a recipe is made, read and checked without TensorFlow, as far as its parts are

    from tfmtr import models

    keras.utils.set_random_seed(recipe.seed)
    head = recipe.head
    if recipe.normalizer == "groups":
        head = ("parallel", {"normalizer": "groups", "num_groups": schema.scenario.num_groups})
    options = {
        "share": recipe.share,
        "head": head,
        "debias": recipe.debias,
        "per_pair": recipe.per_pair,
        "embedding_dim": recipe.embedding_dim,
        "unknown_rate": recipe.unknown_rate,
        "dropout": recipe.dropout,
        "encode": recipe.encode,
    }
    if recipe.form == "two_tower":
        model = models.two_tower(schema, **options, units=recipe.units, literal=recipe.literal)
    else:
        model = models.ranking(schema, **options, has_first_order=recipe.has_first_order)
    if recipe.l2:
        models.add_l2(model, recipe.l2)
    model.compile(make_optimizer(recipe, model), balance=recipe.balance)
    return model
