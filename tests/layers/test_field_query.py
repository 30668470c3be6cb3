import keras
import numpy as np
import pytest

from tfmtr.layers.field_query import FieldQuery


def test_the_equation_and_saving(tmp_path):
    x = keras.Input((3, 4))
    model = keras.Model(x, FieldQuery(2)(x))
    rng = np.random.default_rng(0)
    r, w, pairs = (rng.normal(size=v.shape).astype("float32") for v in model.trainable_variables)
    model.set_weights([r, w, pairs])
    v = rng.normal(size=(5, 3, 4)).astype("float32")
    met = [w[4 * j : 4 * j + 4] + sum(r[i, j] * v[:, i] for i in range(3)) for j in range(2)]
    expected = np.concatenate([*met, np.tile(pairs, (5, 1))], axis=1)
    np.testing.assert_allclose(model.predict(v, verbose=0), expected, rtol=1e-5)
    assert model.output_shape == (None, 9)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again.predict(v, verbose=0), expected, rtol=1e-5)


def test_it_starts_as_a_plain_factorisation_machine():
    layer, v = FieldQuery(2), np.random.default_rng(0).normal(size=(5, 3, 4)).astype("float32")
    met = v.sum(axis=1)  # what each title field's embedding is multiplied with
    np.testing.assert_allclose(layer(v), np.concatenate([met, met, np.ones((5, 1))], axis=1), rtol=1e-5, atol=1e-6)


def test_bad_input():
    with pytest.raises(ValueError, match="`num_title_fields` must be a positive integer"):
        FieldQuery(0)
