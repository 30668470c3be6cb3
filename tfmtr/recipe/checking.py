"""What a recipe's values must be, one by one and together."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tfmtr import components
from tfmtr.checks import check_boolean, check_choice, check_integer, check_number, check_widths
from tfmtr.precision import POLICIES
from tfmtr.recipe.optimizing import check_optimizer, schedule_of
from tfmtr.recipe.part_names import ENCODERS, FORMS, LATER_FORMS, PARTS

if TYPE_CHECKING:
    from tfmtr.recipe.recipe import Recipe

MOST = 2**31 - 1  # as TensorFlow counts rows, widths and steps
INTEGERS = {"embedding_dim": 1, "epochs": 1, "patience": 0, "batch_size": 1, "updates": 1, "patience_updates": 1}
BOOLEANS = ("upsample", "literal", "deterministic", "per_pair", "has_first_order", "listwise")


def checked_values(recipe: "Recipe") -> dict[str, Any]:
    """`{field: value}` of fields that are brought to one form: plain numbers, tuples, parts as they are stored.

    Raises:
        ValueError: If a value is not what it must be, or a part is unknown or has other options.
    """
    if recipe.form in LATER_FORMS:
        raise ValueError(
            f"`form` must be one of {list(FORMS)}: {recipe.form} is not built yet. Received: {recipe.form!r}"
        )
    check_choice("form", recipe.form, FORMS)
    checked: dict[str, Any] = {}
    for argument, folder in PARTS.items():
        if (part := getattr(recipe, argument)) is not None or argument in ("share", "head", "optimizer"):
            components.check_part(folder, part)
            checked[argument] = components.stored(folder, part)
    checked["encode"], checked["schedule"] = _encoder(recipe.form, recipe.encode), schedule_of(recipe)
    check_choice("normalizer", recipe.normalizer, ("rows", "groups"))
    if recipe.normalizer == "groups" and checked["head"] != "parallel":
        raise ValueError(f'`normalizer="groups"` is for the head `parallel`. Received: head={recipe.head!r}')
    _check_groups(recipe.groups)
    checked["groups"] = recipe.groups
    checked["units"] = check_widths("units", recipe.units)
    check_integer("units", max(checked["units"]), least=1, most=MOST)
    for name, least in INTEGERS.items():
        if getattr(recipe, name) is not None or getattr(type(recipe), name) is not None:
            checked[name] = check_integer(name, getattr(recipe, name), least=least, most=MOST)
    checked["seed"] = check_integer("seed", recipe.seed, least=0, most=2**32 - 1)
    checked["learning_rate"] = check_number("learning_rate", recipe.learning_rate, above=0)
    for name in ("unknown_rate", "dropout"):
        checked[name] = check_number(name, getattr(recipe, name), least=0, below=1)
    for name in ("l2", "weight_decay"):
        checked[name] = check_number(name, getattr(recipe, name), least=0)
    if recipe.clip_norm is not None:
        checked["clip_norm"] = check_number("clip_norm", recipe.clip_norm, above=0)
    if recipe.precision is not None:
        check_choice("precision", recipe.precision, POLICIES)
    if recipe.task_weights is not None:
        checked["task_weights"] = _checked_task_weights(recipe.task_weights)
    if recipe.row_weights is not None and (not isinstance(recipe.row_weights, str) or not recipe.row_weights):
        raise ValueError(f"`row_weights` must be the name of a feature. Received: row_weights={recipe.row_weights!r}")
    for name in BOOLEANS:
        check_boolean(name, getattr(recipe, name))
    return checked


def _check_groups(groups: Any) -> None:
    """Raises a `ValueError` unless this says which groups territories are in."""
    if not isinstance(groups, Mapping):
        check_choice("groups", groups, ("given", "one", "random", "territories"))
    elif not groups or not all(isinstance(text, str) for pair in groups.items() for text in pair):
        raise ValueError(f"`groups` must map territories to groups, both text. Received: groups={groups!r}")


def _checked_task_weights(task_weights: Any) -> dict[str, float]:
    """Factors of tasks' losses as plain numbers."""
    is_table = isinstance(task_weights, Mapping) and all(isinstance(task, str) for task in task_weights)
    if not is_table or not task_weights:
        raise ValueError(
            "`task_weights` must be factors of tasks' losses, {task: number}. Received: "
            f"task_weights={task_weights!r}"
        )
    return {t: check_number(f"task_weights.{t}", w, least=0) for t, w in task_weights.items()}


def check_together(recipe: "Recipe") -> None:
    """Raises a `ValueError` if values make no sense together."""
    default = type(recipe)
    for budget, epochs in (("updates", "epochs"), ("patience_updates", "patience")):
        if getattr(recipe, budget) is not None and getattr(recipe, epochs) != getattr(default, epochs):
            raise ValueError(
                f"`{epochs}` must be left out where `{budget}` stands in its place. Received: "
                f"{epochs}={getattr(recipe, epochs)}, {budget}={getattr(recipe, budget)}"
            )
    if recipe.form == "two_tower" and recipe.encode:
        for name in ("units", "unknown_rate"):
            if getattr(recipe, name) != getattr(default, name):
                raise ValueError(
                    f"`{name}` must be left out where `encode=fwfm`, which has no such layers. Received: "
                    f"{name}={getattr(recipe, name)!r}"
                )
    if recipe.form != "two_tower":
        for name in ("units", "literal"):
            if getattr(recipe, name) != getattr(default, name):
                raise ValueError(
                    f"`{name}` must be left out unless `form=two_tower`; a ranking model has the layers of its "
                    f"sharing file. Received: {name}={getattr(recipe, name)!r}, form={recipe.form!r}"
                )
    elif recipe.has_first_order:
        raise ValueError(
            "`has_first_order` must be left out unless `form=ranking`; a two-tower model's index knows vectors "
            f"alone. Received: has_first_order={recipe.has_first_order}, form={recipe.form!r}"
        )
    if recipe.form == "two_tower" and recipe.encode and (recipe.share != "none" or recipe.literal or recipe.dropout):
        raise ValueError(
            "`encode=fwfm` is a two-tower model of its own, whose tasks share their embeddings: it needs "
            f"share=none without `literal` and `dropout`. Received: share={recipe.share!r}, "
            f"literal={recipe.literal}, dropout={recipe.dropout}"
        )
    if recipe.form != "two_tower" and components.is_two_tower_only(recipe.head):
        raise ValueError(
            "`head` must be another one unless `form=two_tower`: this one compares a row's query with the titles "
            f"of other rows, which a ranking model does not have. Received: head={recipe.head!r}, form={recipe.form!r}"
        )
    if recipe.debias is not None and components.is_two_tower_only(recipe.debias, "debiasing"):
        if recipe.form != "two_tower":
            raise ValueError(
                "`debias` must be another one unless `form=two_tower`: this one needs queries and title vectors, which "
                f"a ranking model does not have. Received: debias={recipe.debias!r}, form={recipe.form!r}"
            )
        if recipe.head != "parallel" or recipe.normalizer != "rows":
            raise ValueError(
                "`head` must be `parallel`, with `normalizer=rows`, for a way to debias that has losses of its own. "
                f"Received: debias={recipe.debias!r}, head={recipe.head!r}, normalizer={recipe.normalizer!r}"
            )
    if recipe.per_pair:
        components.check_pairable(recipe.share)
    if recipe.literal and (width := components.tower_width(recipe.share)) not in (None, recipe.units[-1]):
        raise ValueError(
            "`literal` has no layer between the towers of `share` and the dot product, so the last of `units` must "
            f"be as wide as they are. Received: units={recipe.units!r} and share={recipe.share!r} of width {width}"
        )
    is_bilevel = recipe.balance is not None and components.parse("balancing", recipe.balance)[0] == "bilevel"
    if is_bilevel and not components.has_word("sharing", recipe.share, "FusionWeight"):
        raise ValueError(
            "`balance=bilevel` alternates between network and fusion weights: it needs a system that has them, as "
            f"share=m3oe. Received: share={recipe.share!r}"
        )
    check_optimizer(recipe)  # last, as it may import Keras


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
