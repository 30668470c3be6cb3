import keras
import numpy as np
import pytest

from tfmtr.sharing.shared_bottom import shared_bottom


def build(**options):
    keras.utils.set_random_seed(0)
    x, scenario = keras.Input((4,)), keras.Input((), dtype="int32")
    sizes = {"units": (6, 5), "tower_units": (3,), **options}
    shared = shared_bottom(x, scenario, towers=("click", "like"), num_scenarios=2, **sizes)
    model = keras.Model(x, shared.vectors)
    rng = np.random.default_rng(0)
    model.set_weights([w + rng.normal(scale=0.1, size=w.shape) for w in model.get_weights()])  # no bias is zero
    return model, {w.path: np.asarray(w) for w in model.weights}


@pytest.mark.parametrize("normalize", [False, True])
def test_follows_the_equation(normalize):
    model, w = build(normalize=True) if normalize else build()

    def relu(x, layer, *tower):
        if normalize:
            scale, center = (w[f"{layer}/{name}"][*tower] for name in ("scale", "center"))
            x = (x - x.mean()) / np.sqrt(x.var() + 1e-3) * scale + center
        return np.maximum(x, 0)

    rows = np.random.default_rng(1).normal(size=(3, 4)).astype("float32")
    expected = {"click": [], "like": []}
    for h in rows:
        for i in (0, 1):
            h = h @ w[f"bottom_{i}/kernel"] + w[f"bottom_{i}/bias"]
            h = relu(h, f"bottom_{i}")
        for t, tower in enumerate(("click", "like")):
            u = h @ w["towers_0/kernel"][:, t] + w["towers_0/bias"][t]
            expected[tower].append(relu(u, "towers_0", t))
    vectors = model.predict(rows, verbose=0)
    for tower in expected:
        np.testing.assert_allclose(vectors[tower], expected[tower], rtol=1e-4, atol=1e-4)


def test_the_bottom_learns_from_both_tasks_and_a_tower_from_its_own():
    tf = pytest.importorskip("tensorflow")
    model, _ = build()
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(np.random.default_rng(1).normal(size=(8, 4)))["like"])
    kernels = [w for w in model.trainable_weights if "kernel" in w.name]
    gradients = tape.gradient(loss, [w.value for w in kernels])
    gradients = {w.path: np.asarray(g) for w, g in zip(kernels, gradients, strict=True)}
    assert gradients["bottom_0/kernel"].any()
    assert gradients["bottom_1/kernel"].any()
    click, like = np.moveaxis(gradients["towers_0/kernel"], 1, 0)
    assert like.any()
    assert not click.any()


def test_without_tower_layers_all_towers_have_the_shared_representation():
    model, _ = build(tower_units=())
    vectors = model.predict(np.ones((2, 4)), verbose=0)
    assert vectors["click"].shape == (2, 5)
    np.testing.assert_array_equal(vectors["click"], vectors["like"])


def test_refuses_a_width_that_is_not_positive():
    with pytest.raises(ValueError, match=r"`units` must be a positive integer. Received: units=0"):
        build(tower_units=(0,))
