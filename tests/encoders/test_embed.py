import keras
import numpy as np
import pytest

from tfmtr.encoders.embed import embed, embed_fields, encode_inputs
from tfmtr.schema import Feature, Scenario, Schema, Task

FEATURES = (
    Feature("age", "user", "number"),
    Feature("country", "user", "id", ["de", "pl"]),
    Feature("email", "user", "string", width=7),
    Feature("genres", "title", "set", ["drama", "war"], width=3),
    Feature("vector", "title", "vector", width=2),
)
SCHEMA = Schema(FEATURES, [Task("click")], Scenario(["country"], {("de",): "west"}))
ROWS = {
    "age": np.asarray([0.5, -1.0], "float32"),
    "country": np.asarray([2, 0]),
    "email": np.asarray([6, 0]),
    "genres": np.asarray([[1, 3, 0], [0, 0, 0]]),
    "vector": np.asarray([[7.0, 8.0], [9.0, 10.0]], "float32"),
}


def test_puts_numbers_embeddings_mean_embeddings_and_vectors_side_by_side():
    inputs = encode_inputs(SCHEMA, "user", "title")
    model = keras.Model(inputs, embed(inputs, FEATURES, embedding_dim=4))
    country, email, genres = (
        np.asarray(model.get_layer(f"{name}_embedding").embeddings) for name in ("country", "email", "genres")
    )
    assert [len(table) for table in (country, email, genres)] == [3, 7, 4]  # one unknown value; buckets; and padding
    expected = [
        np.concatenate([[0.5], country[2], email[6], (genres[1] + genres[3]) / 2, [7, 8]]),
        np.concatenate([[-1.0], country[0], email[0], np.zeros(4), [9, 10]]),  # an empty list: zeros, not NaN
    ]
    np.testing.assert_allclose(model.predict(ROWS, verbose=0), expected, rtol=1e-6)


def test_a_name_gives_tables_of_their_own():
    inputs = encode_inputs(SCHEMA, "user")
    once, again = (embed_fields(inputs, FEATURES[:2], embedding_dim=4, name=name) for name in (None, "prior"))
    model = keras.Model(inputs, [once["country"], again["country"]])
    a, b = model.predict({name: ROWS[name] for name in inputs}, verbose=0)
    assert not np.allclose(a, b)
    assert model.get_layer("prior_country_embedding")


def test_a_tower_without_features_is_refused():
    with pytest.raises(ValueError, match="A tower needs at least one feature"):
        embed({}, ())
