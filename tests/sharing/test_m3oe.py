import keras
import numpy as np
import pytest

from tfmtr.layers.fusion_weight import FusionWeight
from tfmtr.sharing.m3oe import m3oe

X, SCENARIO = np.random.default_rng(0).normal(size=(3, 4)).astype("float32"), np.asarray([1, 0, 2])
D, N, TOWERS = 3, 2, ("click", "like")
T = len(TOWERS)


def build(towers=TOWERS, num_scenarios=D, **options):
    """The model, and its weights by path, drawn anew so that none is at a neutral start."""
    x, scenario = keras.Input((4,)), keras.Input((), dtype="int32")
    options = {"units": (7, 6), "expert_units": 5, "tower_units": (3,), "num_experts": N, **options}
    shared = m3oe(x, scenario, towers=towers, num_scenarios=num_scenarios, **options)
    model = keras.Model([x, scenario], shared.vectors)
    rng = np.random.default_rng(1)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(size=weight.shape))
    return shared, model, {w.path: np.asarray(w) for w in model.weights}


def softmax(x):
    return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


def relu(x):
    return np.maximum(x, 0)


def norm(x, scale, center):
    return (x - x.mean()) / np.sqrt(x.var() + 1e-3) * scale + center


def weight_of(w, name, i):
    """Equation 10."""
    return 1 / (1 + np.exp(-w[f"{name}/fusion_logit"][i]))


def oracle(x, d, t, w, *, fusion, domain_module, task_module):
    """Equations 1 to 8 without the output layer, for one row of scenario d and task t."""
    star = {part: w[f"common_space/star/{part}"] for part in ("kernel", "bias", f"own_kernel_{d}", f"own_bias_{d}")}
    f_dr = x @ (star[f"own_kernel_{d}"] * star["kernel"]) + star[f"own_bias_{d}"] + star["bias"]
    f_da = x
    for i in range(2):
        f_da = f_da @ w[f"domain_agnostic_{i}/kernel"] + w[f"domain_agnostic_{i}/bias"]
        f_da = relu(norm(f_da, w[f"domain_agnostic_{i}/scale"], w[f"domain_agnostic_{i}/center"]))
    h = f_dr @ w["common_space/dense/kernel"] + w["common_space/dense/bias"] + f_da

    def experts(name, number):
        kernel, bias, scale, center = (w[f"{name}_experts/{part}"] for part in ("kernel", "bias", "scale", "center"))
        return [relu(norm(h @ kernel[:, i] + bias[i], scale[i], center[i])) for i in range(number)]

    def own_and_others(name, outputs, i):
        beta = weight_of(w, name, i)
        others = [output for j, output in enumerate(outputs) if j != i]
        return beta * outputs[i] + (1 - beta) / len(others) * sum(others)

    common = experts("shared", N)
    domain = experts("domain", D) if domain_module else []
    task = experts("task", T) if task_module else []
    gated = common + domain + task if fusion == "gated" else common
    logits = (h @ w[f"gates/kernel_{d}"] + w[f"gates/bias_{d}"]).reshape(T, len(gated))[t]
    parts = [sum(g * e for g, e in zip(softmax(logits), gated, strict=True))]
    if fusion != "gated":
        if domain_module:
            alpha = weight_of(w, "alpha_d", d) if fusion == "weighted" else 1.0
            parts.append(alpha * own_and_others("beta_d", domain, d))
        if task_module:
            alpha = weight_of(w, "alpha_t", t) if fusion == "weighted" else 1.0
            parts.append(alpha * own_and_others("beta_t", task, t))
    h_bar = np.concatenate(parts) if fusion == "concat" else sum(parts)
    return relu(h_bar @ w[f"{TOWERS[t]}_tower_0/kernel_{d}"] + w[f"{TOWERS[t]}_tower_0/bias_{d}"])


@pytest.mark.parametrize("fusion", ["weighted", "concat", "gated"])
@pytest.mark.parametrize(("domain_module", "task_module"), [(True, True), (False, True), (True, False), (False, False)])
@pytest.mark.parametrize("training", [False, True])  # which multiplies other things with one another
def test_follows_the_equations_and_each_ablation_of_table_3(fusion, domain_module, task_module, training):
    options = {"fusion": fusion, "domain_module": domain_module, "task_module": task_module}
    shared, model, w = build(**options)
    outputs = model([X, SCENARIO], training=training)
    for t, tower in enumerate(TOWERS):
        expected = [oracle(x, d, t, w, **options) for x, d in zip(X, SCENARIO, strict=True)]
        np.testing.assert_allclose(outputs[tower], expected, rtol=1e-3, atol=1e-4)
    assert shared.routed_output


def test_fusion_weights_are_found_by_type_and_name_and_have_one_number_for_each_domain_or_task():
    def shapes(model):
        return {layer.name: layer.fusion_logit.shape for layer in model.layers if isinstance(layer, FusionWeight)}

    assert shapes(build()[1]) == {"alpha_d": (D,), "beta_d": (D,), "alpha_t": (T,), "beta_t": (T,)}
    assert shapes(build(fusion="concat")[1]) == {"beta_d": (D,), "beta_t": (T,)}
    assert shapes(build(fusion="gated")[1]) == {}
    assert shapes(build(num_scenarios=1)[1]) == {"alpha_d": (1,), "alpha_t": (T,), "beta_t": (T,)}
    assert shapes(build(towers=("click",))[1]) == {"alpha_d": (D,), "beta_d": (D,), "alpha_t": (1,)}


def test_without_learning_the_fusion_weights_stay_at_one_half():
    _, model, w = build(learn_fusion=False)
    assert not any("fusion_logit" in v.name for v in model.trainable_variables)
    options = {"fusion": "weighted", "domain_module": True, "task_module": True}
    assert weight_of(w, "beta_d", 0) == 0.5
    expected = [oracle(x, d, 0, w, **options) for x, d in zip(X, SCENARIO, strict=True)]
    np.testing.assert_allclose(model([X, SCENARIO])["click"], expected, rtol=1e-3, atol=1e-4)


def moved(model, scenario, tower):
    """Paths of the weights that rows of one scenario and one task train."""
    tf = pytest.importorskip("tensorflow")
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(model([X, np.full(len(X), scenario)])[tower]))
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    pairs = zip(model.trainable_variables, gradients, strict=True)
    return {v.path: np.asarray(g) for v, g in pairs if g is not None and np.any(g)}


def test_a_row_trains_the_experts_of_all_domains_and_tasks_but_only_its_own_gates_and_tower():
    gradients = moved(build()[1], 1, "like")
    for name, number in (("domain", D), ("task", T)):
        assert np.any(gradients[f"{name}_experts/kernel"], axis=(0, 2)).tolist() == [True] * number
    own = {path for path in gradients if "tower" in path or "gates" in path}
    assert {path.split("/")[0] for path in own} == {"like_tower_0", "gates"}
    assert {path[-1] for path in own} == {"1"}
    np.testing.assert_array_equal(np.nonzero(gradients["alpha_d/fusion_logit"])[0], [1])
    np.testing.assert_array_equal(np.nonzero(gradients["beta_t/fusion_logit"])[0], [1])


def test_beta_at_one_is_the_own_expert_alone():
    _, model, _ = build()
    for layer in ("beta_d", "beta_t"):
        model.get_layer(layer).fusion_logit.assign(np.full(model.get_layer(layer).fusion_logit.shape, 30.0))
    gradients = moved(model, 1, "like")
    assert np.any(gradients["domain_experts/kernel"], axis=(0, 2)).tolist() == [False, True, False]
    assert np.any(gradients["task_experts/kernel"], axis=(0, 2)).tolist() == [False, True]


def test_one_common_expert_needs_no_gate():
    assert "gates" not in {layer.name for layer in build(num_experts=1)[1].layers}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fusion": "sum"}, "`fusion` must be one of weighted, concat, gated. Received: fusion=sum"),
        ({"units": (8,)}, r"`units` must have two widths.*units=\(8,\)"),
        ({"num_experts": 0}, "`num_experts` must be a positive integer. Received: num_experts=0"),
    ],
)
def test_refuses_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)
