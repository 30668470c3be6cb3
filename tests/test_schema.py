import functools

import pytest

from tfmtr.schema import Feature, Scenario, Schema, Task

SCENARIO = Scenario(["territory", "tab"], {("DE", "home"): "a", ("FR", "home"): "b", ("FR", "search"): "a"})


def test_survives_json(tmp_path):
    schema = Schema(
        [Feature("age", "user", "number", mean=3.5, std=2.0), Feature("genres", "title", "set", ["é", "b"], width=3)],
        [Task("click", "is_click", weight=2.0, mean=0.1), Task("watch", kind="regression", mean=12.0)],
        SCENARIO,
        ["territory", "tab"],
    )
    schema.save(tmp_path)
    assert Schema.load(tmp_path) == schema


def test_scenario_groups_are_counted_once():
    assert SCENARIO.names == ("a", "b")
    assert SCENARIO.num_groups == 2


def test_the_order_of_groups_does_not_depend_on_the_order_they_came_in():
    groups = {(str(i),): f"group {i:02}" for i in range(30)}
    backwards = Scenario(["territory"], dict(reversed(groups.items())))
    assert backwards.names == tuple(groups.values())
    assert backwards == Scenario(["territory"], groups)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Feature("a", "usr", "number"), r"`role` must be one of .*Did you mean 'user'\?.*role='usr'"),
        *(
            (
                functools.partial(Feature, "a", "user", kind),
                r"`width` must be a positive integer .*name='a', width=None",
            )
            for kind in ("vector", "string", "set", "sequence")
        ),
        (lambda: Feature("a", "user", "id", ["x", "x"]), "`vocabulary` of feature 'a' must not repeat a value"),
        (lambda: Feature("a", "user", "number", std=0.0), r"`std` of feature 'a' must be positive.*std=0.0"),
        (lambda: Task("a", kind="bin"), r"`kind` must be one of .*Did you mean 'binary'\?"),
        (lambda: Task("a", mean=2.0), r"`mean` of the binary task 'a' must be in \[0, 1\]"),
        (lambda: Scenario([], {}), r"`columns` must name at least one column"),
        (lambda: Scenario(["a"], {("x", "y"): "g"}), r"Every key of `groups` must have one value for each"),
        (lambda: Schema([], [], SCENARIO), r"`tasks` must name at least one task"),
        (lambda: Schema([], [Task("a"), Task("a")], SCENARIO), r"`tasks` must have different names.*\['a'\]"),
        (
            lambda: Schema([Feature(n, "user", "vector", width=2) for n in "ab"], [Task("t")], SCENARIO),
            r"A role has at most one vector feature.*'user': \['a', 'b'\]",
        ),
    ],
)
def test_refuses_what_makes_no_sense(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_directory_without_schema_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"must be a directory made by `tfmtr prepare` or `tfmtr train`"):
        Schema.load(tmp_path)


@pytest.mark.parametrize("text", ["[]", "{}", "null", '{"scenario": {}}'])
def test_a_document_that_is_no_schema_is_named(tmp_path, text):
    (tmp_path / "schema.json").write_text(text)
    with pytest.raises(ValueError, match=r"schema\.json` must hold a schema as `tfmtr prepare` writes it"):
        Schema.load(tmp_path)
