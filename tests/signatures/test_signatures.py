"""Signatures are found by file name, say what they need, and are left out where an export lacks it."""

import functools

import keras
import pytest

tf = pytest.importorskip("tensorflow")

from tfmtr import components  # noqa: E402
from tfmtr.schema import Feature, Scenario, Schema, Task  # noqa: E402
from tfmtr.signatures import Served, Signature, specs  # noqa: E402
from tfmtr.signatures._signature import FOLDER, PARTS, needs_of, signatures_of  # noqa: E402

SCHEMA = Schema(
    [Feature("age", "user", "number"), Feature("genre", "title", "number")],
    [Task("click")],
    Scenario(["territory"], {("DE",): "west"}),
)
USERS = {"age": keras.Input((), name="age"), "territory": keras.Input((), dtype="string", name="territory")}
TITLES = {"genre": keras.Input((), name="genre")}
SERVED = Served(SCHEMA, "run-1", USERS, TITLES)
TITLE = keras.Model(TITLES, keras.ops.expand_dims(TITLES["genre"], 1))


def doubled(served, *, title, factor=2.0):
    return Signature(lambda raw: {"doubled": factor * title(raw)}, specs(served.titles))


def test_every_file_says_which_parts_of_an_export_it_needs():
    needs = {name: needs_of(name, components.find(FOLDER, name)) for name in components.names(FOLDER)}
    assert {part for parts in needs.values() for part in parts} == set(PARTS)  # a part that none asks for is none
    assert {name for name, parts in needs.items() if "recommender" in parts} == {
        "recommend", "recommend_by_vector", "rank",
    }  # fmt: skip
    assert {name for name, parts in needs.items() if "ranker" in parts} == {"rank"}
    assert {name for name, parts in needs.items() if "score" in parts} == {"serving_default"}


def test_an_export_without_a_part_leaves_out_what_needs_it():
    found = signatures_of(SERVED, {"title": TITLE})  # as of a model without an index
    assert list(found) == ["title_embedding"]
    assert found["title_embedding"].inputs == {"genre": tf.TensorSpec([None], tf.float32, name="genre")}
    answer = found["title_embedding"].function({"genre": tf.constant([2.0])})
    assert answer["title_embedding"].numpy().tolist() == [[2.0]]


def test_a_new_file_is_a_signature(monkeypatch):
    files = components._files
    module = type(components)("doubled")
    module.doubled = doubled
    monkeypatch.setattr(components, "_files", lambda folder: [*files(folder), *["doubled"] * (folder == FOLDER)])
    monkeypatch.setitem(__import__("sys").modules, "tfmtr.signatures.doubled", module)
    found = signatures_of(SERVED, {"title": TITLE})["doubled"]
    assert found.function({"genre": tf.constant([2.0])})["doubled"].numpy().tolist() == [[4.0]]


def test_a_signature_may_be_given_with_its_options():
    more = [functools.partial(doubled, factor=3.0)]
    found = signatures_of(SERVED, {"title": TITLE}, more)["doubled"]
    assert found.function({"genre": tf.constant([2.0])})["doubled"].numpy().tolist() == [[6.0]]


def test_what_cannot_be_a_signature_is_refused():
    def title_embedding(served, *, title):
        return doubled(served, title=title)

    def scored(served, *, score):
        return doubled(served, title=score)

    def wrong(served, *, titel):
        return doubled(served, title=titel)

    parts = {"title": TITLE}
    with pytest.raises(ValueError, match=r"`signatures` must have names of their own. Received: 'title_embedding'"):
        signatures_of(SERVED, parts, [title_embedding])
    with pytest.raises(ValueError, match=r"this export has: \['title'\]\. Received: 'scored', which needs \['score'\]"):
        signatures_of(SERVED, parts, [scored])
    with pytest.raises(ValueError, match=r"must ask for parts of .*Did you mean 'title'.*'titel' of 'wrong'"):
        signatures_of(SERVED, parts, [wrong])
    with pytest.raises(ValueError, match=r"`signatures` must be one of .*Did you mean 'recommend'\?"):
        signatures_of(SERVED, parts, ["recomend"])
