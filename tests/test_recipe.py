import copy
import dataclasses
import functools
import json
import pickle
import sys

import keras
import numpy as np
import pytest

from tfmtr import components
from tfmtr.models import two_tower
from tfmtr.read_only import read_only
from tfmtr.recipe import ENCODERS, PARTS, Recipe, as_toml, parse_change, parse_changes
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
            for name in ("upsample", "literal", "deterministic", "per_pair", "has_first_order")
            for value in (1, "no", None)
        ),
        ({"groups": {"DE": 3}}, "`groups` must map territories to groups, both text"),
        ({"groups": {}}, "`groups` must map territories to groups, both text"),
        ({"task_weights": {3: 1.0}}, "`task_weights` must be factors of tasks' losses"),
        ({"row_weights": ""}, "`row_weights` must be the name of a feature"),
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


def test_what_a_recipe_holds_cannot_be_changed_and_is_its_own():
    options = {"weights": {"click": 2.0}}
    given = {"groups": {"DE": "west"}, "task_weights": {"click": 1.0}, "schedule": ["cosine_decay", {"decay_steps": 9}]}
    recipe = Recipe(share=["ple", {"units": [8]}], balance=("fixed_weights", options), **given)
    again = Recipe.from_document(recipe.document())
    options["weights"]["click"], given["groups"]["DE"], given["schedule"][1]["decay_steps"] = 5.0, "x", 1
    assert recipe == again
    tables = (recipe.share[1], recipe.balance[1], recipe.balance[1]["weights"], recipe.groups, recipe.task_weights)
    for table in (*tables, recipe.schedule[1]):
        (key,) = table
        for change in (
            lambda t, key: t.__setitem__(key, 3),
            lambda t, key: t.__delitem__(key),
            lambda t, key: t.__ior__({key: 3}),
            lambda t, key: t.update({key: 3}),
            lambda t, key: t.setdefault("other", 3),
            lambda t, key: t.pop(key),
            lambda t, key: t.popitem(),
            lambda t, key: t.clear(),
        ):
            with pytest.raises(TypeError, match=r"must stay as they are: make another recipe, such as .*replace"):
                change(table, key)
    for copied in (pickle.loads(pickle.dumps(recipe)), copy.copy(recipe), copy.deepcopy(recipe)):
        assert (copied, hash(copied), copied.document()) == (recipe, hash(recipe), recipe.document())
        with pytest.raises(TypeError, match="must stay as they are"):
            copied.balance[1]["weights"]["click"] = 3
    assert Recipe.from_toml(recipe.to_toml()) == recipe
    assert dataclasses.asdict(recipe)["balance"] == ("fixed_weights", {"weights": {"click": 2.0}})
    assert dataclasses.replace(recipe, share=("ple", {**recipe.share[1], "units": (4,)})).share[1] == {"units": (4,)}


def test_recipes_of_earlier_runs_are_read():
    document = {
        name: value
        for name, value in dataclasses.asdict(Recipe()).items()
        if name not in ("balance", "per_pair", "has_first_order")
    }
    assert Recipe(**{**document, "units": [512, 512], "learning_rate": 1}) == Recipe(learning_rate=1.0)


def test_a_function_may_stand_for_a_name():
    share = functools.partial(components.find("sharing", "mmoe"), num_experts=2)
    recipe = Recipe(share=share, units=(8,))
    assert recipe == Recipe(share=("mmoe", {"num_experts": 2}), units=(8,))
    assert recipe.document()["share"] == {"name": "mmoe", "num_experts": 2}
    assert recipe.build(SCHEMA).count_params() < Recipe(share="mmoe", units=(8,)).build(SCHEMA).count_params()
    nameless = Recipe(share=lambda *arguments, **options: share(*arguments, **options), units=(8,))
    assert nameless.build(SCHEMA).count_params() == recipe.build(SCHEMA).count_params()
    with pytest.raises(ValueError, match=r"`share` must be a name, or a function that others can import.*=<function"):
        nameless.document()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"balance": "fixed_weights"}, r"`balance=fixed_weights` needs a value for `weights`.*--set balance\.weights="),
        (
            {"share": ("ple", {"num_expert": 2})},
            r"Options of `share=ple` must be .*Did you mean .num_experts.\?",
        ),
        ({"share": ("none", {"depth": 2})}, r"Options of `share=none` must be left out: there are none"),
        ({"share": ("ple", {"num_experts": "2"})}, r"`num_experts` of `share=ple` must be a value like its default, 1"),
        ({"share": ("ple", {"normalize": 1})}, r"`normalize` of `share=ple` must be a value like its default, False"),
        ({"head": ("esmm", {"towers": ()})}, r"Options of `head=esmm` must be left out"),
        ({"optimizer": ("adam", {"beta1": 0.5})}, r"Options of `optimizer=adam` must be .*Did you mean 'beta_1'\?"),
        ({"optimizer": ("adam", {"learning_rate": 1.0})}, r"Options of `optimizer=adam` must be one of"),
        ({"share": ("ple", {"name": "x"})}, r"option of `share=ple` must not be called `name`: .* Received: name='x'"),
        ({"schedule": ("cosine_decay", {"name": "x"})}, r"option of `schedule=cosine_decay` must not be called `name`"),
        ({"share": "no_such.module:part"}, r"`share` must be the import path .*No module named 'no_such'"),
        ({"share": "tfmtr.sharing.ple:pel"}, r"`share` must be the import path .*has no attribute 'pel'"),
        ({"share": "tfmtr.schema:ROLES"}, r"`share` must be the import path of a function\. Received: .*tuple"),
        ({"share": functools.partial(len, [])}, "`share` must have its options by name"),
        ({"form": "graph"}, r"`form` must be one of \['two_tower', 'ranking'\]: graph is not built yet"),
        ({"form": "rankin"}, r"`form` must be one of .*Did you mean 'ranking'\?"),
        ({"form": "ranking", "units": (8,)}, r"`units` must be left out unless `form=two_tower`"),
        ({"form": "ranking", "literal": True}, r"`literal` must be left out unless `form=two_tower`"),
        ({"has_first_order": True}, r"`has_first_order` must be left out unless `form=ranking`.* form='two_tower'"),
        (
            {"form": "ranking", "head": "in_batch_softmax"},
            r"`head` must be another one unless `form=two_tower`: .*compar",
        ),
        (
            {"form": "ranking", "head": ("in_batch_softmax", {"negatives": "batch"})},
            "`head` must be another one unless `form=two_tower`",
        ),
        ({"head": ("escm2", {"regularizer": "both"})}, r"`regularizer` of `head=escm2` must be one of \['ipw', 'dr'\]"),
        ({"encode": "fm"}, r"`encode` of form=two_tower must be one of \['fwfm'\]"),
        ({"encode": "fwfm"}, r"`encode=fwfm` is a two-tower model of its own, .* share='territory_branches'"),
        ({"form": "ranking", "encode": "crosss"}, r"`encode` must be one of .*Did you mean 'cross'\?"),
        ({"schedule": "cosine"}, r"`schedule` must be one of .*Did you mean 'cosine_decay'\?"),
        ({"schedule": "cosine_decay"}, r"`schedule=cosine_decay` must have the options .*missing a required argument"),
        ({"schedule": ("cosine_decay", {"steps": 3})}, r"`schedule=cosine_decay` must have the options .*'steps'"),
        ({"precision": "float16"}, r"`precision` must be one of \['float32', 'mixed_bfloat16'\]"),
        ({"task_weights": {"click": -1}}, r"`task_weights\.click` must be a finite number, not less than 0"),
        ({"task_weights": {}}, r"`task_weights` must be factors of tasks' losses"),
        ({"row_weights": 3}, r"`row_weights` must be the name of a feature"),
        ({"updates": 0}, r"`updates` must be an integer, from 1 to 2147483647"),
        ({"clip_norm": 0}, r"`clip_norm` must be a finite number, greater than 0"),
        ({"dropout": 1.0}, r"`dropout` must be a finite number, not less than 0 and less than 1"),
        (
            {"balance": "bilevel"},
            r"`balance=bilevel` .* needs a system that has them, as share=m3oe\. Received: share='terr",
        ),
        *(
            (
                {"optimizer": ("adam", {"use_ema": name != "gradient_accumulation_steps", name: value})},
                rf"`optimizer=adam` must have values that it takes: .*`{name}`",
            )
            for name, value in (
                ("gradient_accumulation_steps", 1),
                ("ema_momentum", 2.0),
                ("ema_overwrite_frequency", -1),
            )
        ),
        ({"optimizer": ("sparse_adam", {"amsgrad": True})}, "`amsgrad` is not for row-sparse moments"),
        (
            {"weight_decay": 0.1, "optimizer": ("adam", {"weight_decay": 0.2})},
            r"`optimizer\.weight_decay` must be left out",
        ),
    ],
)
def test_parts_and_options_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ValueError, match=message) as refused:
        Recipe(**changes)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("share", components.names("sharing"))
def test_the_paper_s_score_needs_towers_of_one_width_and_any_system_may_have_it(share):
    read = components.tower_width(share)
    options, _ = components._options_of("sharing", share)
    name = next((name for name in ("tower_units", "units") if name in options), None)
    assert (read is None) == (share in ("none", "shrunken_branches", "territory_branches"))
    if read is not None:
        with pytest.raises(
            ValueError, match=r"the last of `units` must be as wide as they are\. Received: units=\(4,\)"
        ):
            Recipe(literal=True, share=share, units=(4,))
        default = options[name].default
        share = (share, {name: (*default[:-1], 4) if isinstance(default, tuple) else 4})
    schema = SCHEMA.replace(features=[*SCHEMA.features, Feature("user", "user", "id", ["a", "b"])])
    assert Recipe(literal=True, share=share, units=(4,)).build(schema).user_tower.output["click"].shape == (None, 4)


NAN, COSINE, LISTED = float("nan"), "cosine_decay", "piecewise_constant_decay"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"updates": 10, "epochs": 5}, "`epochs` must be left out where `updates` stands in its place"),
        ({"patience_updates": 3, "patience": 9}, "`patience` must be left out where `patience_updates`"),
        ({"encode": "fwfm", "share": "none", "units": (3,)}, "`units` must be left out where `encode=fwfm`"),
        ({"encode": "fwfm", "share": "none", "unknown_rate": 0.5}, "`unknown_rate` must be left out where `encode=fw"),
        ({"schedule": (COSINE, {"decay_steps": float("inf")})}, "`decay_steps` must be a finite number"),
        ({"schedule": (COSINE, {"decay_steps": 0})}, "`decay_steps` must be a finite number, greater than 0"),
        ({"schedule": (COSINE, {"decay_steps": 9, "warmup_steps": 5})}, "`warmup_steps` must have a `warmup_target`"),
        ({"schedule": (LISTED, {"boundaries": [5, 1], "values": [1.0, 0.5, 0.1]})}, "`boundaries` must grow"),
        *(
            ({"schedule": (LISTED, {"boundaries": [5], "values": ["a", value]})}, "`values` must be a finite number")
            for value in ("b", NAN)
        ),
        (
            {"schedule": (LISTED, {"boundaries": [5], "values": [0.2, 0.1]}), "learning_rate": 0.1},
            "`learning_rate` must be left out with `schedule=piecewise_constant_decay`",
        ),
        ({"schedule": ("exponential_decay", {"decay_steps": 5, "decay_rate": "a"})}, "`decay_rate` must be a finite"),
        ({"schedule": ("polynomial_decay", {"decay_steps": 5, "power": NAN})}, "`power` must be a finite number"),
        ({"schedule": (COSINE, {"decay_steps": True})}, "`decay_steps` must be a finite number.* decay_steps=True"),
        ({"schedule": (COSINE, {"decay_steps": "9"})}, "`decay_steps` must be a finite number.* decay_steps='9'"),
        ({"schedule": (COSINE, {"decay_steps": [9]})}, r"`decay_steps` must be a finite number.* decay_steps=\(9,\)"),
        ({"schedule": ("polynomial_decay", {"decay_steps": 5, "cycle": 1})}, "`cycle` must be True or False"),
        (
            {"schedule": ("exponential_decay", {"decay_steps": 5, "decay_rate": 0.9, "staircase": "no"})},
            "`staircase` must be True or False. Received: staircase='no'",
        ),
        (
            {"schedule": (COSINE, {"decay_steps": 9, "initial_learning_rate": 0.1})},
            "`initial_learning_rate` must be left out: that is the recipe's `learning_rate`",
        ),
        *(
            ({"optimizer": ("adam", {name: value})}, rf"`optimizer\.{name}` must be a finite number, {bound}")
            for name, value, bound in (
                ("epsilon", -1.0, "not less than 0"),
                ("weight_decay", -2.0, "not less than 0"),
                ("global_clipnorm", -1.0, "greater than 0"),
                ("clipnorm", 0, "greater than 0"),
                ("clipvalue", -1, "greater than 0"),
                ("loss_scale_factor", 0.0, "greater than 0"),
            )
        ),
        ({"optimizer": ("adam", {"clipnorm": 1.0}), "clip_norm": 1.0}, "Only one of `clipnorm`"),
        ({"encode": {"name": "fwfm", "depth": 3}, "share": "none"}, "Options of `encode=fwfm` must be left out"),
        ({"optimizer": ("adam", {"beta_1": 2.0})}, r"`optimizer\.beta_1` must be .* less than 1\. Received"),
        ({"balance": ("grad_norm", {"alpha": NAN})}, "`alpha` of `balance=grad_norm` must be a value like its default"),
        (
            {"balance": ("fixed_weights", {"weights": 3})},
            r"`weights` of .* must be of the type .*Mapping\[str, float\]",
        ),
        ({"balance": ("fixed_weights", {"weights": {"a": "b"}})}, "`weights` of `balance=fixed_weights` must be of"),
        *(
            (
                {"share": ("ple", {"num_experts": value})},
                "`num_experts` of `share=ple` must be a value like its default, 1",
            )
            for value in (2.5, NAN, [2], None, True)
        ),
        *(
            ({"share": ("ple", {"units": value})}, "`units` of `share=ple` must be a value like its default")
            for value in (8, [8.5], ["8"])
        ),
        ({"share": ("territory_branches", {"units": 2.5})}, r"`units` of .* must be of the type int \| None"),
        ({"l2": 10**400}, "`l2` must be a finite number"),
        *(({name: 2**31}, f"`{name}` must be an integer, from") for name in ("embedding_dim", "epochs", "batch_size")),
        ({"share": {"num_experts": 3}}, "`share` must have the key `name` beside its options"),
        ({"per_pair": True, "share": "star"}, "`share` of `per_pair` must be a system that needs x alone"),
        *(
            ({"share": path}, "`share` must be a function like those of tfmtr/sharing. Received: ")
            for path in ("os.path:join", "builtins:print")
        ),
        *(
            (
                {"share": path},
                "`share` must be the import path of a function, package.module:function, .* Received: share",
            )
            for path in ("..:a", ".pk:x", "pk:", "os.path:..")
        ),
    ],
)
def test_values_that_make_no_sense_are_refused_at_construction(changes, message):
    with pytest.raises(ValueError, match=message) as refused:
        Recipe(**changes)
    assert "\n" not in str(refused.value)


def test_numbers_that_may_be_whole_or_nothing_are_taken():
    recipe = Recipe(balance=("grad_norm", {"alpha": 2}), share=("territory_branches", {"units": None}))
    assert (recipe.balance, recipe.share) == (("grad_norm", {"alpha": 2}), "territory_branches")
    assert Recipe.from_toml(recipe.to_toml()) == recipe
    nothing = Recipe(head=("in_batch_softmax", {"frequency": None}))  # which is not its default
    assert Recipe.from_document(nothing.document()) == nothing
    with pytest.raises(ValueError, match="A recipe must have no option that is None to be written as TOML"):
        nothing.to_toml()


@pytest.mark.parametrize("error", ["raise RuntimeError('no\\nluck')", "def", "raise SystemExit(3)"])
def test_a_module_that_cannot_be_imported_is_named(error, tmp_path, monkeypatch):
    (tmp_path / "broken_part.py").write_text(error.replace("\\n", " "))
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"`share` must be the import path .* Received: share='broken_part:x'"):
        Recipe(share="broken_part:x")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Recipe(units=(2**31, 4)), "`units` must be an integer, from 1 to 2147483647"),
        (lambda: Recipe.load(None), "`recipe` must be a TOML file that can be read. Received: None"),
        (lambda: Recipe.load("a\0b"), "`recipe` must be a TOML file that can be read"),
        (lambda: Recipe.from_document({}, ["share=ple"]), r"`changes` must be \{key: value\}"),
        (lambda: Recipe.from_document({}, {3: 3}), r"`changes` must be \{key: value\}. Received: changes=\{3: 3\}"),
    ],
)
def test_what_python_would_raise_an_error_of_its_own_for_is_said(make, message):
    with pytest.raises(ValueError, match=message) as refused:
        make()
    assert "\n" not in str(refused.value)


def test_missing_options_are_named_in_order():
    def part(problem, *, first, second):
        pass

    with pytest.raises(ValueError, match=r"`balance=.*part` needs a value for `first` and `second`"):
        components.check_part("balancing", part)


def test_parts_that_need_a_value_take_it():
    refused = []
    for argument, folder in {**PARTS, "encode": ENCODERS}.items():
        for name in components.names(folder):
            try:
                beside = {"encode": {"form": "ranking"}, "balance": {"share": "m3oe"}}.get(argument, {})
                Recipe(**{argument: name}, **beside)
            except ValueError:
                refused.append(name)
    assert refused == ["fixed_weights"]  # what the other parts need, models give them
    assert Recipe(balance=("fixed_weights", {"weights": {"click": 2}})).balance[1] == {"weights": {"click": 2}}


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
    monkeypatch.setattr(components, "_files", lambda folder: ["mine"])
    monkeypatch.setitem(sys.modules, f"tfmtr.{folder}.mine", module)
    argument = components.ARGUMENTS[folder]
    with pytest.raises(ValueError, match=rf"`{argument}=mine` needs a value for `depth`, which has no default"):
        components.check_part(folder, "mine")
    components.check_part(folder, ("mine", {"depth": 3}))


def test_a_part_that_needs_a_name_is_refused_and_one_with_a_default_keeps_it(monkeypatch):
    module = type(components)("mine")
    exec("def needs(tasks, *, name): pass\ndef has(tasks, *, name='mine'): pass", vars(module))
    monkeypatch.setitem(sys.modules, "mine", module)
    with pytest.raises(ValueError, match=r"option of `head=mine:needs` must not be called `name`: .* another name in"):
        components.check_part("heads", "mine:needs")
    components.check_part("heads", "mine:has")


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(),
        Recipe(share=("ple", {"num_experts": 2, "units": [64, 32]}), head="esmm", groups={"DE": "own", "PL": "own"}),
        Recipe(balance=("fixed_weights", {"weights": {"click": 0.5}}), task_weights={"click": 2}, updates=100),
        Recipe(form="ranking", encode=("cross", {"num_layers": 1}), share="mmoe", optimizer=("adam", {"beta_1": 0.5})),
        Recipe(
            share="tfmtr.sharing.ple:ple", schedule=("cosine_decay", {"decay_steps": 10}), precision="mixed_bfloat16"
        ),
    ],
)
def test_a_file_holds_a_recipe(recipe, tmp_path):
    assert Recipe.from_toml(recipe.to_toml()) == recipe
    assert Recipe.from_document(json.loads(json.dumps(recipe.document()))) == recipe
    file = tmp_path / "recipe.toml"
    file.write_text(recipe.to_toml())
    assert Recipe.load(file) == recipe
    assert hash(Recipe.load(file)) == hash(recipe)


def test_changes_come_after_a_file():
    text = '[share]\nname = "ple"\nnum_experts = 2\n'
    changed = dict(map(parse_change, ("share.num_shared_experts=3", "l2=1e-5", "units=[8]", "task_weights.click=2")))
    expected = Recipe(
        share=("ple", {"num_experts": 2, "num_shared_experts": 3}), l2=1e-5, units=(8,), task_weights={"click": 2.0}
    )
    assert Recipe.from_toml(text, changed) == expected
    assert Recipe.from_toml(text, {"share": "mmoe"}) == Recipe(share="mmoe")  # another part has its own options
    assert Recipe.from_toml("", {"share": "ple", "share.num_experts": 4}) == Recipe(share=("ple", {"num_experts": 4}))


@pytest.mark.parametrize(
    ("text", "changes", "message"),
    [
        ("share = ", {}, "A recipe must be a TOML file: "),
        ("shares = 'ple'", {}, r"A recipe must have keys of \[.*Did you mean 'share'\? Received: 'shares'"),
        ("", {"epoch": 3}, r"Did you mean 'epochs'\? Received: 'epoch'"),
        ("", {"balance.alpha": 1}, r"`balance` must be there before it has options: `--set balance=\.\.\.`"),
        ("", {"share.name": "ple"}, r"`--set share=\.\.\.` says which part `share` is. Received: share\.name='ple'"),
        ("", {"shar.num_experts": 1}, r"`--set` must name a part before a dot: one of .*Did you mean 'share'\?"),
        ("", {"share.depth": 1}, r"Options of `share=territory_branches` must be .* Received: depth=1"),
    ],
)
def test_a_file_or_change_that_is_none_is_refused(text, changes, message):
    with pytest.raises(ValueError, match=message) as refused:
        Recipe.from_toml(text, changes)
    assert "\n" not in str(refused.value)


def test_changes_come_in_their_order_and_once():
    assert list(parse_changes(["share=ple", "l2=1", "share.num_experts=4"])) == ["share", "l2", "share.num_experts"]
    for texts, undone in (
        (["share=ple", "share.num_experts=4", "share=mmoe"], "share"),
        (["share.num_experts=4", "share=mmoe"], "share.num_experts"),
        (["epochs=3", "epochs=3"], "epochs"),
    ):
        with pytest.raises(ValueError, match=rf"`--set` must name each key once.* Received: {undone}, and then "):
            parse_changes(texts)


def test_a_change_takes_back_what_a_file_says():
    text = 'balance = "pcgrad"\nprecision = "mixed_bfloat16"\nclip_norm = 2.0\n[groups]\nDE = "a"\n'
    changes = parse_changes(["balance=none", "precision=none", "clip_norm=None", "groups.PL=b"])
    assert Recipe.from_toml(text, changes) == Recipe(groups={"DE": "a", "PL": "b"})
    assert Recipe.from_toml('share = "ple"', parse_changes(["share=none"])).share == "none"  # which is a part


def test_words_of_python_and_numbers_without_a_nought_are_values_too():
    changes = parse_changes(["listwise=False", "literal=TRUE", "learning_rate=.01", "l2=1.", "dropout=.1e0"])
    assert Recipe.from_toml("", changes) == Recipe(listwise=False, literal=True, learning_rate=0.01, l2=1, dropout=0.1)
    assert parse_change("groups.DE=007") == ("groups.DE", "007")
    assert parse_change("row_weights=nan.") == ("row_weights", "nan.")


def test_an_encoder_of_two_tower_models_may_be_a_table():
    for encode in ("fwfm", {"name": "fwfm"}, ("fwfm", {})):
        assert Recipe(encode=encode, share="none") == Recipe(encode="fwfm", share="none")


def test_values_are_written_as_they_are_read():
    face = "\N{GRINNING FACE}"
    values = ((64, 32), True, 3, 1e-5, "erf", "4", "a b", face, {"a b": 1, f"é{face}": "x", "": 2.0})
    for value in (*values, values):
        assert read_only(parse_change(f"share.x={as_toml(value)}")[1]) == value


def test_a_second_line_of_a_change_is_refused():
    with pytest.raises(ValueError, match="`--set` must be one key=value; repeat it for more"):
        parse_change("seed=3\nx=2")


@pytest.mark.parametrize("document", [None, [], "share", {3: 4}])
def test_what_is_no_document_is_refused(document):
    with pytest.raises(ValueError, match=r"A recipe must be a table of keys and values. Received: "):
        Recipe.from_document(document)


def test_files_of_other_editors(tmp_path):
    file = tmp_path / "recipe.toml"
    file.write_bytes(b"\xef\xbb\xbfepochs = 3\n")
    assert Recipe.load(file).epochs == 3
    file.write_bytes(b"share = '\xff'\n")
    with pytest.raises(ValueError, match=rf"`recipe` must be a TOML file that can be read. Received: {file} \("):
        Recipe.load(file)
    file.write_text("l2 = " + "[" * 5000)
    with pytest.raises(ValueError, match=f"{file}: A recipe must be a TOML file: "):
        Recipe.load(file)
    with pytest.raises(
        ValueError, match=r"`text` must be TOML; `Recipe.load` reads a file. Received: text=.*recipe.toml"
    ):
        Recipe.from_toml(file)


@pytest.mark.parametrize("text", ["share", "=ple", "share=", "share.=mmoe", ".x=3"])
def test_what_is_no_change_is_refused(text):
    with pytest.raises(ValueError, match=r"`--set` must be key=value, such as share\.num_experts=4"):
        parse_change(text)


def test_import_paths_can_be_locked(monkeypatch):
    monkeypatch.setattr(components, "_LOCKED", [])
    assert Recipe(share="tfmtr.sharing.ple:ple").share == "tfmtr.sharing.ple:ple"
    components.lock()
    with pytest.raises(ValueError, match=r"`share` must be the name of a part with `--no-import-paths`"):
        Recipe(share="tfmtr.sharing.ple:ple")
    assert Recipe(share="ple").share == "ple"


def test_l2_and_weight_decay_keep_kernels_small_and_leave_biases_alone():
    plain, heavy = Recipe(units=(8, 4)).build(SCHEMA), Recipe(units=(8, 4), l2=0.5).build(SCHEMA)
    assert plain.losses == []
    squares = sum(float((np.asarray(v) ** 2).sum()) for v in heavy.trainable_variables if len(v.shape) > 1)
    assert float(sum(heavy.losses)) == pytest.approx(0.5 * squares, rel=1e-5)
    decayed = Recipe(units=(8, 4), weight_decay=0.1, learning_rate=0.5).build(SCHEMA)
    before = [np.asarray(variable) for variable in decayed.trainable_variables]
    for variable in decayed.trainable_variables:
        variable.assign(variable + 1.0)
    decayed.optimizer.apply([np.zeros(v.shape, "float32") for v in decayed.trainable_variables])
    for start, variable in zip(before, decayed.trainable_variables, strict=True):
        factor = 1 - 0.1 * 0.5 if len(variable.shape) > 1 else 1.0  # AdamW: w <- w - rate decay w
        np.testing.assert_allclose(np.asarray(variable), factor * (start + 1.0), rtol=1e-5)


def test_dropout_is_between_hidden_layers_and_in_training_only():
    model = Recipe(units=(64, 8, 4), dropout=0.5).build(SCHEMA)
    names = [layer.name for layer in model._flatten_layers() if isinstance(layer, keras.layers.Dropout)]
    assert sorted(names) == ["title_dropout_0", "title_dropout_1", "user_dropout_0", "user_dropout_1"]
    ranking = Recipe(form="ranking", share="none", dropout=0.5).build(SCHEMA)
    rng = np.random.default_rng(0)
    x = {"age": rng.normal(size=9).astype("float32"), "scenario": np.ones(9, "int32")}
    x["vector"] = rng.normal(size=(9, 3)).astype("float32")
    for one in (model, ranking):
        outputs = [np.asarray(one(x, training=True)["logits"]["click"]) for _ in range(2)]
        assert not np.allclose(*outputs)
        np.testing.assert_array_equal(*[np.asarray(one(x, training=False)["logits"]["click"]) for _ in range(2)])


def test_an_option_that_no_file_can_hold_is_left_to_its_part():
    recipe = Recipe(balance=("bilevel", {"batch": object()}), share="m3oe")  # such as a data set
    with pytest.raises(ValueError, match="A recipe must have options that a file can hold to be stored"):
        recipe.document()


def test_a_first_order_term_is_of_ranking_models():
    plain, linear = (Recipe(form="ranking", share="none", has_first_order=on).build(SCHEMA) for on in (False, True))
    assert linear.count_params() == plain.count_params() + 1 + 3  # a weight for each number


def test_schedule_and_clipping_reach_the_optimizer():
    recipe = Recipe(units=(8,), schedule=("cosine_decay", {"decay_steps": 10}), learning_rate=0.4, clip_norm=2.0)
    optimizer = recipe.build(SCHEMA).optimizer
    assert optimizer.global_clipnorm == 2.0
    assert float(optimizer.learning_rate) == pytest.approx(0.4)
    optimizer.iterations.assign(5)
    assert float(optimizer.learning_rate) == pytest.approx(0.2)  # half the cosine


def test_a_budget_of_updates_is_rounded_up_to_epochs():
    recipe = Recipe(updates=25, patience_updates=11)
    assert (recipe.epochs_of(10), recipe.patience_of(10)) == (3, 2)
    assert (Recipe().epochs_of(10), Recipe().patience_of(10)) == (10, 2)


def test_weights_of_tasks_and_rows_must_be_of_the_data():
    assert Recipe(task_weights={"click": 3}).adapt(SCHEMA).tasks[0].weight == 3.0
    with pytest.raises(ValueError, match=r"`task_weights` must be one of \['click'\]\. Did you mean 'click'\?"):
        Recipe(task_weights={"clik": 3}).adapt(SCHEMA)
    with pytest.raises(ValueError, match="`task_weights` must leave a task that is trained"):
        Recipe(task_weights={"click": 0}).adapt(SCHEMA)
    with pytest.raises(
        ValueError, match=r"`head` must be a function that returns a `Head`. Received: 'builtins:len', 1"
    ):
        Recipe(head="builtins:len").adapt(SCHEMA)
    with pytest.raises(
        ValueError, match=r"`row_weights` must be a training-only number, .*`--training`.* Received: row_weights='age'"
    ):
        Recipe(row_weights="age").adapt(SCHEMA)


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


@pytest.mark.parametrize("returned", [3, {}, None])
def test_a_sharing_function_that_returns_no_vectors_is_refused(returned):
    recipe = Recipe(share=lambda x, scenario, *, towers, num_scenarios: returned, units=(8,))
    with pytest.raises(ValueError, match=r"`share` must be a function that returns \{tower: vector\}"):
        recipe.build(SCHEMA)
