import dataclasses
import functools

import numpy as np
import pytest

from tfmtr import components
from tfmtr.models import two_tower
from tfmtr.recipe import Recipe
from tfmtr.schema import Feature, Scenario, Schema, Task

SCHEMA = Schema(
    [Feature("age", "user", "number"), Feature("vector", "title", "vector", width=3)],
    [Task("click")],
    Scenario(["territory"], {("DE",): "west"}),
)
INTEGERS = {"epochs": 1, "patience": 0, "batch_size": 1, "embedding_dim": 1, "seed": 0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"share": "plee"}, r"`share` must be one of .*Did you mean 'ple'\? Received: share='plee'"),
        ({"head": "esm"}, r"`head` must be one of .*Did you mean 'esmm'\?"),
        ({"balance": "pcgrd"}, r"`balance` must be one of .*Did you mean 'pcgrad'\?"),
        ({"share": None}, "`share` must be one of"),
        *(({name: least - 1}, f"`{name}` must be an integer, .*{least}") for name, least in INTEGERS.items()),
        *(({name: value}, f"`{name}` must be an integer") for name in INTEGERS for value in ("3", 2.5, True, None)),
        ({"seed": 2**32}, "`seed` must be an integer, from 0 to 4294967295"),
        *(
            ({"learning_rate": value}, "`learning_rate` must be a finite number, greater than 0")
            for value in (0, -1.0, float("nan"), float("inf"), "0.1", None, True)
        ),
        *(
            ({"unknown_rate": value}, "`unknown_rate` must be a finite number, not less than 0 and less than 1")
            for value in (-0.1, 1, float("nan"), "0.1")
        ),
        *(
            ({"units": value}, r"`units` must be the widths of one or more layers, .* such as \(512, 512\)")
            for value in ((), 8, "8,4", (8, 0), (8, 4.0), ("8",), None, (True,), {8})
        ),
        *(
            ({name: value}, f"`{name}` must be True or False")
            for name in ("upsample", "literal", "deterministic", "per_pair")
            for value in (1, "no", None)
        ),
        ({"groups": {"DE": 3}}, "`groups` must map territories to groups, both text"),
        ({"optimizer": "adamm"}, r"`optimizer` must be one of .*Did you mean 'adam'\?"),
    ],
)
def test_a_value_that_cannot_be_is_refused_in_one_line(changes, message):
    with pytest.raises(ValueError, match=message) as refused:
        Recipe(**changes)
    (name, value) = next(iter(changes.items()))
    assert "\n" not in str(refused.value)
    assert str(refused.value).endswith(f"Received: {name}={value!r}")


def test_what_a_document_holds_is_plain():
    recipe = Recipe(units=[np.int64(8)], seed=np.int32(3), learning_rate=np.float32(0.5), epochs=np.int8(2))
    assert Recipe(**recipe.document()) == recipe
    assert (recipe.units, type(recipe.seed), type(recipe.learning_rate)) == ((8,), int, float)


def test_recipes_of_earlier_runs_are_read():
    document = {
        name: value for name, value in dataclasses.asdict(Recipe()).items() if name not in ("balance", "per_pair")
    }
    assert Recipe(**{**document, "units": [512, 512], "learning_rate": 1}) == Recipe(learning_rate=1.0)


def test_a_function_may_stand_for_a_name():
    share = functools.partial(components.find("sharing", "mmoe"), num_experts=2)
    assert Recipe(share=share, units=(8,)).build(SCHEMA).count_params() > 0
    with pytest.raises(
        ValueError, match=r"`share` must be a name to be stored in run\.json.*Received: share=functools"
    ):
        Recipe(share=share).document()


def test_a_part_whose_options_only_python_can_set_is_refused():
    with pytest.raises(
        ValueError, match=r"`weights`, which neither `tfmtr train`.*partial\(fixed_weights, weights=\.\.\.\)"
    ):
        Recipe(balance="fixed_weights")
    refused = []
    for folder, argument in components.ARGUMENTS.items():
        for name in components.names(folder):
            try:
                Recipe(**{argument: name})
            except ValueError:
                refused.append(name)
    assert refused == ["fixed_weights"]  # what the other parts need, models give them


@pytest.mark.parametrize(
    ("folder", "source"),
    [
        ("sharing", "def {name}(x, scenario, *, towers, num_scenarios, fields, depth): pass"),
        ("sharing", "def {name}(x, scenario, depth, *, towers, num_scenarios): pass"),
        ("heads", "def {name}(tasks, *, depth, width=1): pass"),
        ("balancing", "def {name}(problem, *, depth, **options): pass"),
    ],
)
def test_a_new_part_is_looked_at_by_itself(folder, source, monkeypatch):
    module = type(components)("mine")
    exec(source.format(name="mine"), vars(module))
    monkeypatch.setattr(components, "names", lambda folder: ["mine"])
    monkeypatch.setitem(__import__("sys").modules, f"tfmtr.{folder}.mine", module)
    argument = components.ARGUMENTS[folder]
    with pytest.raises(ValueError, match=rf"`{argument}=mine` has an option without a default, `depth`,"):
        components.check_options(folder, "mine")


@pytest.mark.parametrize("folder", ["sharing", "heads", "balancing"])
def test_a_message_names_the_argument_not_the_folder(folder):
    argument = components.ARGUMENTS[folder]
    with pytest.raises(ValueError, match=f"^`{argument}` must be one of .*Received: {argument}='nothing'$"):
        components.find(folder, "nothing")


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        *(({"units": value}, "units") for value in ((), 8, "8", (8, -1), (8.0,))),
        *(({"embedding_dim": value}, "embedding_dim") for value in (0, "4", 1.5)),
        *(({"unknown_rate": value}, "unknown_rate") for value in (1.0, -1, "0")),
    ],
)
def test_a_model_of_impossible_sizes_is_refused(options, argument):
    with pytest.raises(ValueError, match=f"^`{argument}` must be"):
        two_tower(SCHEMA, **options)
