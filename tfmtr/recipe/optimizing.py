"""The optimizer of a recipe: its options, its schedule, and what they must be."""

import contextlib
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tfmtr import components, declared
from tfmtr.checks import check_boolean, check_choice, check_number

if TYPE_CHECKING:
    from tfmtr.models import JointModel
    from tfmtr.recipe.recipe import Recipe

SCHEDULES = ("cosine_decay", "exponential_decay", "inverse_time_decay", "piecewise_constant_decay", "polynomial_decay")
LISTED = "piecewise_constant_decay"  # the schedule that lists its rates itself
RATES = ("beta_1", "beta_2", "rho", "momentum")  # options of optimizers: shares of what was before that stay
POSITIVE = ("clipnorm", "clipvalue", "global_clipnorm", "loss_scale_factor")  # which would stop or turn learning


def optimizer_of(name: str) -> Any:
    """The class of an optimizer's name, of the file `tfmtr/optimizers/<name>.py`."""
    return components.find("optimizers", name)


def make_optimizer(recipe: "Recipe", model: "JointModel") -> Any:
    """The optimizer of a recipe for a model, with schedule, decay and clipping."""
    import keras

    from tfmtr import models

    rate = recipe.learning_rate
    if recipe.schedule is not None:
        name, options = recipe.schedule
        rate = getattr(keras.optimizers.schedules, _camel(name))(**_start(name, rate), **options)
    optimizer = components.find("optimizers", recipe.optimizer)(rate, **options_of_fields(recipe))
    if recipe.weight_decay:
        weights = {id(variable) for variable in models.kernels(model)}
        others = [variable for variable in model.trainable_variables if id(variable) not in weights]
        optimizer.exclude_from_weight_decay(var_list=others)
    return optimizer


def options_of_fields(recipe: "Recipe") -> dict[str, float]:
    """Options of the optimizer that are fields of the recipe."""
    options = {"weight_decay": recipe.weight_decay or None, "global_clipnorm": recipe.clip_norm}
    return {name: value for name, value in options.items() if value is not None}


def check_optimizer(recipe: "Recipe") -> None:
    """Raises a `ValueError` unless the optimizer takes its options; only where there are any, Keras is imported."""
    options = recipe.optimizer[1] if isinstance(recipe.optimizer, tuple) else {}
    for name in set(RATES) & set(options):
        check_number(f"optimizer.{name}", options[name], least=0, below=1)
    twice = {"weight_decay": recipe.weight_decay, "global_clipnorm": recipe.clip_norm, "l2": recipe.l2}
    for name in options:
        if twice.get(name):
            raise ValueError(f"`optimizer.{name}` must be left out where the recipe has it. Received: {twice[name]}")
    if options:  # last, as it imports Keras
        try:
            components.find("optimizers", recipe.optimizer)(recipe.learning_rate, **options_of_fields(recipe))
        except (TypeError, ValueError) as error:
            text = " ".join(str(error).split())
            raise ValueError(
                f"`optimizer={recipe.optimizer[0]}` must have values that it takes: {text} Received: {dict(options)}"
            ) from None
        for name, value in options.items():  # those of no sense that Keras takes
            if isinstance(value, float | int) and not isinstance(value, bool):
                check_number(f"optimizer.{name}", value, **({"above": 0} if name in POSITIVE else {"least": 0}))


def schedule_of(recipe: "Recipe") -> tuple[str, dict[str, Any]] | None:
    """What stands for the schedule: `(name, options)`, which Keras takes."""
    if recipe.schedule is None:
        return None
    name, options = recipe.schedule, {}
    if not isinstance(name, str):
        name, options = components.parse("optimizers", recipe.schedule, argument="schedule")
    check_choice("schedule", name, SCHEDULES)
    name = str(name)
    if name == LISTED and recipe.learning_rate != type(recipe).learning_rate:
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
        parameters = next(declared.constructors("keras.optimizers.schedules", schedule))
        inspect.Signature(parameters[1:]).bind(**options)


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
