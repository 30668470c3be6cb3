"""`tfmtr train`."""

import dataclasses
import inspect
import typing
from pathlib import Path
from typing import Annotated, Any

import typer

from tfmtr.arguments import pairs, whole_numbers
from tfmtr.cli.common_options import check_typed
from tfmtr.cli.option_groups import keyword, with_signature
from tfmtr.cli.printing import print_where


def train(
    *, data: Path, out: Path, recipe: Path | None, changes: list[str] | None, strategy: str | None, **options: Any
) -> None:
    """Train a model, then window by window as the tests will see it.

    What decides the result is a recipe: a TOML file, what the options below say in its place, and last what --set says,
    key=value as in the file; a key with a dot is an option of a part, such as share.num_experts=4. Values are as in
    TOML, words need no quotes, and none takes back what the file says. A part with options is a table, such as
    --share '{name="ple", num_experts=4}' or --schedule '{name="cosine_decay", decay_steps=5000}'.
    """
    from tfmtr.recipe import Recipe, parse_changes

    given = {name: recipe_value(name, value) for name, value in options.items() if value is not None}
    last = parse_changes(changes or ())
    given = {name: value for name, value in given.items() if name not in last} | last
    made = Recipe.load(recipe, given) if recipe else Recipe.from_document({}, given)
    check_typed(data=data)
    from tfmtr import replicas, training

    with replicas.make_strategy(strategy).scope():
        training.train(data, out, made)
    print_where("run", out)


def recipe_value(name: str, text: Any) -> Any:
    """The value of a recipe's field from what was typed for its option."""
    from tfmtr.recipe import OPTIONAL, STORED_AS_TABLES, parse_change

    if name == "units":
        return whole_numbers("units", text)
    if name == "task_weights":
        try:
            return {task: float(weight) for task, weight in pairs("task-weights", text.split(",")).items()}
        except ValueError:
            raise ValueError(f"`--task-weights` must be task=number pairs. Received: {text!r}") from None
    if name in STORED_AS_TABLES or (name in OPTIONAL and text == "none") or (name == "groups" and text[:1] == "{"):
        return parse_change(f"{name}={text}")[1]
    return text


def _parameters() -> list[inspect.Parameter]:
    from tfmtr.recipe import Recipe, option_texts

    def option(name: str, kind: Any, default: Any = None, **about: Any) -> inspect.Parameter:
        annotation = Annotated[kind, typer.Option(*about.pop("flags", ()), **about)]
        return keyword(name, annotation, default)

    required = inspect.Parameter.empty
    parameters = [
        option("data", Path, required, help="Directory made by `tfmtr prepare`."),
        option("out", Path, required, help="Run directory; an interrupted run there goes on."),
        option("recipe", Path | None, help="TOML file with the recipe; its defaults otherwise."),
        option("changes", list[str] | None, flags=["--set"], help="key=value of the recipe, such as l2=1e-5; repeat."),
    ]
    texts = option_texts()
    for field in dataclasses.fields(Recipe):
        kind = next((kind for kind in (bool, int, float) if kind in (field.type, *typing.get_args(field.type))), str)
        kind = str if field.name in ("units", "task_weights") else kind
        default = ",".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
        flag = field.name.replace("_", "-")
        shown = default if kind is not bool else f"--{flag}" if default else f"--no-{flag}"
        text = texts[field.name] if default is None else f"{texts[field.name]} [default: {shown}]"
        parameters.append(option(field.name, kind | None, help=text))
    text = "none, mirrored (all GPUs of this machine) or multi_worker, by default if TF_CONFIG names workers."
    parameters.append(option("strategy", str | None, help=text))
    return parameters


with_signature(train, _parameters())
