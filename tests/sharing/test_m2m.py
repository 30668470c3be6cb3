import keras
import numpy as np
import pytest

from tfmtr.sharing.m2m import m2m

RNG = np.random.default_rng(0)
X, SCENARIO = RNG.normal(size=(3, 4)).astype("float32"), np.asarray([1, 0, 1])
FEATURES = RNG.normal(size=(3, 2)).astype("float32")
TOWERS, N, LAYERS, LEVELS = ("click", "like"), 3, 2, 2


def build(**options):
    x, scenario, features = keras.Input((4,)), keras.Input((), dtype="int32"), keras.Input((2,))
    sizes = {"units": 5, "knowledge_units": 3, "num_experts": N, "num_layers": LAYERS, "num_levels": LEVELS, **options}
    vectors = m2m(x, scenario, towers=TOWERS, num_scenarios=2, scenario_features=features, **sizes)
    model = keras.Model([x, scenario, features], vectors)
    rng = np.random.default_rng(1)
    for weight in model.weights:
        weight.assign(0.5 * rng.normal(size=weight.shape))
    return model, {w.path: np.asarray(w) for w in model.weights}


def sigma(x):
    return np.where(x > 0, x, 0.2 * x)


def softmax(x):
    return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


def test_follows_the_equations():
    model, w = build()
    outputs = model([X, SCENARIO, FEATURES])
    for row, (x, features) in enumerate(zip(X, FEATURES, strict=True)):
        s = sigma(features @ w["knowledge/kernel"] + w["knowledge/bias"])

        def meta(h, name, s=s):
            for k in range(LAYERS):  # the generated weights of this row, W = V s + v and b = U s + u
                kernels, biases = w[f"{name}_{k}/kernel"], w[f"{name}_{k}/bias"]
                kernel = np.tensordot(kernels[:, :-1], s, axes=(1, 0)) + kernels[:, -1]
                h = sigma(h @ kernel + s @ biases[:-1] + biases[-1])
            return h

        e = [sigma(x @ w["experts/kernel"][:, i] + w["experts/bias"][i]) for i in range(N)]
        for t, tower in enumerate(TOWERS):
            z = sigma(w["task_embedding/embeddings"][t] @ w["task_views/kernel"] + w["task_views/bias"])
            pairs = [meta(np.concatenate([e_i, z]), f"{tower}_attention") for e_i in e]
            a = softmax(np.asarray([pair @ w[f"{tower}_attention_score/kernel"][:, 0] for pair in pairs]))
            u = sum(a_i * e_i for a_i, e_i in zip(a, e, strict=True))
            for j in range(LEVELS):
                u = sigma(meta(u, f"{tower}_level_{j}") + u)
            np.testing.assert_allclose(outputs[tower][row], u, rtol=1e-4, atol=1e-5)


def test_weights_come_from_the_scenarios_features_and_from_nothing_else():
    model, _ = build()
    a = model([X, SCENARIO, FEATURES])["click"]
    np.testing.assert_allclose(model([X, 1 - SCENARIO, FEATURES])["click"], a)
    assert not np.allclose(model([X, SCENARIO, -FEATURES])["click"], a)


def test_tasks_attend_with_units_of_their_own():
    model, w = build()
    before = model([X, SCENARIO, FEATURES])
    model.get_layer("click_attention_0").kernel.assign(2 * w["click_attention_0/kernel"])
    after = model([X, SCENARIO, FEATURES])
    assert not np.allclose(after["click"], before["click"])
    np.testing.assert_allclose(after["like"], before["like"])


def test_a_tower_starts_from_the_blend_by_its_residual():
    model, w = build(num_levels=1, num_layers=1)
    for name in ("kernel", "bias"):
        getattr(model.get_layer("click_level_0_0"), name).assign(0 * w[f"click_level_0_0/{name}"])
    model.get_layer("click_attention_score").kernel.assign(0 * w["click_attention_score/kernel"])  # plain mean
    mean = sigma(np.einsum("bi,inu->bnu", X, w["experts/kernel"]) + w["experts/bias"]).mean(1)
    np.testing.assert_allclose(model([X, SCENARIO, FEATURES])["click"], sigma(mean), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", ["units", "knowledge_units", "num_experts", "num_layers", "num_levels"])
def test_refuses_sizes_that_are_not_positive(size):
    with pytest.raises(ValueError, match=f"`{size}` must be a positive integer. Received: {size}=0"):
        build(**{size: 0})
