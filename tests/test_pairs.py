"""A model's outputs for users with many titles each (`tfmtr.models.pairs`), for every sharing file and head."""

import keras
import numpy as np
import pytest

from studies.combinations import study as combinations
from tfmtr import components
from tfmtr.models.pairs import call_pairs

NUMBER, USERS = 3, 4
HEADS = [name for name in components.names("heads") if not components.is_two_tower_only(name)]
MODELS = [("parallel", share) for share in components.names("sharing")] + [(head, "mmoe") for head in HEADS]


@pytest.mark.parametrize(("head", "share"), MODELS)
def test_pairs_are_the_rows_of_each_user_with_each_title(head, share):
    model = combinations.build(head, share, "ranking").predictor
    rows = {name: value for name, value in combinations.rows(USERS * NUMBER).items() if name in model.input}
    of_titles = {feature.name for feature in combinations.build(head, share, "ranking").schema.by_role("title")}
    titles = {name: value for name, value in rows.items() if name in of_titles}
    users = {name: value[:USERS] for name, value in rows.items() if name not in of_titles}
    assert titles
    expected = model({**titles, **{name: np.repeat(value, NUMBER, axis=0) for name, value in users.items()}})
    found = call_pairs(model, users, titles, NUMBER)
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6)


class Rows(keras.layers.Layer):
    """Notes how many rows it was called with."""

    def call(self, inputs):
        self.seen = inputs.shape[0]
        return 2 * inputs


def test_what_depends_on_the_user_alone_is_computed_once_a_user():
    user, title = keras.Input((2,), name="user"), keras.Input((2,), name="title")
    of_user, of_title, of_both = Rows(name="of_user"), Rows(name="of_title"), Rows(name="of_both")
    score = of_both(of_user(user) * of_title(title))
    model = keras.Model({"user": user, "title": title}, {"score": score, "taste": of_user.output})
    rng = np.random.default_rng(0)
    users, titles = rng.normal(size=(USERS, 2)), rng.normal(size=(USERS * NUMBER, 2))
    found = call_pairs(model, {"user": users}, {"title": titles}, NUMBER)
    assert [layer.seen for layer in (of_user, of_title, of_both)] == [USERS, USERS * NUMBER, USERS * NUMBER]
    repeated = np.repeat(users, NUMBER, axis=0)
    np.testing.assert_allclose(found["score"], 8 * repeated * titles, rtol=1e-6)
    np.testing.assert_allclose(found["taste"], 2 * repeated, rtol=1e-6)
    with pytest.raises(ValueError, match=r"must have all inputs of the model. Received: none of \['title'\]"):
        call_pairs(model, {"user": users}, {}, NUMBER)
