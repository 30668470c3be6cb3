"""Balancers at work on models: what is shared is found from the graph, one forward pass, state that is kept."""

import functools

import keras
import numpy as np
import pytest

from studies.combinations import study as combinations
from tfmtr import components, models
from tfmtr.balancing._balancer import Balancer
from tfmtr.balancing._step import Compact, shared_slices
from tfmtr.schema import Feature, Scenario, Schema, Task

tf = pytest.importorskip("tensorflow")
NAMES = components.names("balancing")
OPTIONS = {
    "fixed_weights": {"weights": {"click": 2.0}},
    "dynamic_weight_average": {"period": 2},
    "stch": {"warmup": 4},
    "bilevel": {"every": 3},
}


def make(name):
    return functools.partial(components.find("balancing", name), **OPTIONS.get(name, {}))


def build(balance, share="mmoe", head="parallel", form="ranking", optimizer=keras.optimizers.Adam, rate=1e-2):
    model = combinations.build(head, "m3oe" if balance == "bilevel" else share, form)
    model.compile(optimizer(rate), balance=None if balance is None else make(balance))
    return model


def data(model, rows=120):
    x = {name: value for name, value in combinations.rows(rows).items() if name in model.input}
    rng = np.random.default_rng(0)
    signal = x["user_vector"][:, 0] * x["title_vector"][:, 0] if "user_vector" in x else rng.normal(size=rows)
    labels = {"click": signal > 0, "purchase": signal > 1.0}
    return x, {name: value.astype("float32") for name, value in labels.items()}


def fit(model, epochs=2, rows=120):
    x, y = data(model, rows)
    options = {"batch_size": 40, "shuffle": False, "verbose": 0}
    return model.fit(x, y, epochs=epochs, **options).history["loss"]


@functools.cache
def stepping(name):
    """A model that several tests make steps of without tracing."""
    return build(name, optimizer=keras.optimizers.SGD)


@pytest.mark.parametrize("name", NAMES)
def test_every_balancer_learns_under_fit(name):
    """Traced, with an optimizer and layers that are traced quickly: Adam takes a third of the time."""
    rate = 0.02 if name == "fair_grad" else 0.3  # its gradients are longer
    losses = fit(build(name, "shared_bottom", optimizer=keras.optimizers.SGD, rate=rate), epochs=8)
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0] - 0.05


@pytest.mark.parametrize("name", NAMES)
def test_one_forward_pass_a_step(name, monkeypatch):
    model, calls = stepping(name), []
    x, y = data(model, 40)
    call = type(model).__call__
    monkeypatch.setattr(type(model), "__call__", lambda self, *a, **k: calls.append(1) or call(self, *a, **k))
    model.train_step((x, y))
    assert len(calls) == 1


@pytest.mark.parametrize("name", ["aligned_mtl", "cagrad", "fair_grad", "nash_mtl"])
def test_gradients_that_are_no_numbers_end_in_no_error_of_a_matrix(name):
    model = build(name, "shared_bottom", optimizer=keras.optimizers.SGD)
    for variable in model.trainable_variables:
        variable.assign(variable * np.nan)
    assert np.isnan(fit(model, epochs=1)).all()  # of which training says that no epoch has a finite loss


@pytest.mark.usefixtures("eager")
def test_equal_is_the_plain_sum():
    plain, balanced = fit(build(None)), fit(build("equal"))
    np.testing.assert_allclose(balanced, plain, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "head", "share", "form"),
    [
        ("pcgrad", "escm2", "ple", "two_tower"),
        ("mgda", "cross_distil", "stem", "ranking"),
        ("uncertainty", "escm2", "ple", "two_tower"),
        ("grad_drop", "cross_distil", "stem", "ranking"),
        ("adatask", "escm2", "ple", "two_tower"),
    ],
)
@pytest.mark.usefixtures("eager")
def test_any_head_and_sharing_file(name, head, share, form):
    losses = fit(build(name, share, head, form, keras.optimizers.SGD))
    assert np.isfinite(losses).all()


@pytest.mark.parametrize("name", ["pcgrad", "uncertainty", "adatask", "metabalance"])
def test_trains_in_mixed_bfloat16(name):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        losses = fit(build(name), epochs=4)
        assert np.isfinite(losses).all()
        assert losses[-1] < losses[0]
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_without_a_label_of_one_task_stays_finite(name):
    model = stepping(name)
    x, y = data(model, 40)
    y["purchase"] = np.full(40, np.nan, "float32")
    for _ in range(3):
        model.train_step(({k: tf.constant(v) for k, v in x.items()}, {k: tf.constant(v) for k, v in y.items()}))
    assert all(np.isfinite(np.asarray(v)).all() for v in model.variables)


def paths(model, shared=True):
    return {v.path for i, v in enumerate(model.trainable_variables) if (i in model.balance.masks) == shared}


def test_what_is_shared_is_found_from_the_graph():
    model = build("pcgrad", share="mmoe")
    assert {"experts_0/kernel", "user_embedding/embeddings"} <= paths(model)
    # All tasks' gates and towers are slices of one kernel each, which nobody shares.
    assert {"gates/kernel", "towers_0/kernel", "click_logit/kernel"} <= paths(model, shared=False)


def test_a_kernel_may_be_shared_in_part():
    model = build("pcgrad", share="hinet")
    (place,) = (i for i, v in enumerate(model.trainable_variables) if v.path == "task_experts/kernel")
    np.testing.assert_array_equal(np.ravel(model.balance.masks[place]), [0, 0, 0, 0, 1, 1])


def test_shared_slices_of_a_kernel():
    a, b = np.zeros((3, 4)), np.zeros((3, 4))
    a[:, :3], b[:, 2:] = 1, 1  # columns 0, 1 are a's, 2 of both, 3 is b's
    np.testing.assert_array_equal(shared_slices([a, b]), [[0, 0, 1, 0]])
    assert shared_slices([np.ones((2, 2)), np.ones((2, 2))]) is None
    dead = np.ones((2, 2))
    dead[0] = 0  # a unit that is dead for one task only is no slice of its own
    assert shared_slices([np.ones((2, 2)), dead]) is None


def plain_update(model, shared, own, x, y):
    """The gradients that the step must find, one loss at a time and dense."""
    found = {}
    for name in ("click", "purchase"):
        with tf.GradientTape() as tape:
            y_pred = model(x, training=True)
            loss = model.losses_by_name(x, y, y_pred)[name]
        values = tape.gradient(loss, [v.value for v in model.trainable_variables], unconnected_gradients="zero")
        found[name] = [np.asarray(tf.convert_to_tensor(g)) for g in values]
    total = []
    for i, (a, b) in enumerate(zip(found["click"], found["purchase"], strict=True)):
        mask = model.balance.masks.get(i, 0.0)
        mask = 1.0 if mask is None else mask
        total.append(mask * (shared[0] * a + shared[1] * b) + (1 - mask) * (own[0] * a + own[1] * b))
    return total, found


@pytest.mark.parametrize("share", ["mmoe", "hinet", "stem"])
def test_the_update_is_the_combination_of_the_losses_gradients(share):
    seen = {}

    def half(problem):
        def coefficients(gram, losses, state):
            seen["gram"], seen["losses"] = gram, losses
            return tf.constant([0.5, 2.0]), tf.constant([3.0, -1.0]), {}

        return Balancer(coefficients=coefficients)

    model = combinations.build("parallel", share, "ranking")
    model.compile(keras.optimizers.SGD(1.0), balance=half)
    x, y = data(model, 40)
    x, y = ({k: tf.constant(v) for k, v in part.items()} for part in (x, y))
    before = [np.asarray(v) for v in model.trainable_variables]
    expected, by_loss = plain_update(model, (0.5, 2.0), (3.0, -1.0), x, y)
    model.train_step((x, y))
    for variable, old, gradient in zip(model.trainable_variables, before, expected, strict=True):
        np.testing.assert_allclose(old - np.asarray(variable), gradient, rtol=1e-3, atol=1e-5, err_msg=variable.path)
    masks = {i: 1.0 if m is None else m for i, m in model.balance.masks.items()}
    vectors = [np.concatenate([np.ravel(by_loss[n][i] * m) for i, m in masks.items()]) for n in ("click", "purchase")]
    np.testing.assert_allclose(seen["gram"], np.asarray(vectors) @ np.asarray(vectors).T, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("share", ["mmoe", "hinet"])
def test_two_objectives_move_what_is_shared_and_what_is_not(share):
    def apart(problem):
        def objectives(losses, state):
            return 0.5 * losses[0] + 2.0 * losses[1], 3.0 * losses[0] - losses[1], {}

        return Balancer(objectives=objectives)

    model = combinations.build("parallel", share, "ranking")
    model.compile(keras.optimizers.SGD(1.0), balance=apart)
    x, y = data(model, 40)
    x, y = ({k: tf.constant(v) for k, v in part.items()} for part in (x, y))
    before = [np.asarray(v) for v in model.trainable_variables]
    expected, _ = plain_update(model, (0.5, 2.0), (3.0, -1.0), x, y)
    model.train_step((x, y))
    for variable, old, gradient in zip(model.trainable_variables, before, expected, strict=True):
        np.testing.assert_allclose(old - np.asarray(variable), gradient, rtol=1e-3, atol=1e-5, err_msg=variable.path)


def test_gradients_of_tables_stay_sparse():
    a = tf.IndexedSlices(tf.constant([[1.0], [2.0], [4.0]]), tf.constant([5, 7, 5]), tf.constant([1000, 1]))
    b = tf.IndexedSlices(tf.constant([[3.0]]), tf.constant([9]), tf.constant([1000, 1]))
    compact = Compact([a, b, None])
    assert compact.stack.shape == (3, 3, 1)  # rows 5, 7, 9
    np.testing.assert_allclose(compact.gram(), [[29, 0, 0], [0, 9, 0], [0, 0, 0]])
    restored = compact.restore(tf.tensordot(tf.constant([1.0, 10.0, 0.0]), compact.stack, 1))
    assert isinstance(restored, tf.IndexedSlices)
    dense = np.asarray(tf.convert_to_tensor(restored))[:, 0]
    assert {i: dense[i] for i in np.flatnonzero(dense)} == {5: 5.0, 7: 2.0, 9: 30.0}
    mixed = Compact([a, tf.ones((1000, 1))])  # one loss reaches the table in another way too
    assert mixed.rows is None


def test_losses_of_layers_are_added_after_the_combination():
    """SNR's penalty is not a task: its gradient is not balanced."""
    base, balanced = (combinations.build("parallel", "snr", "ranking") for _ in range(2))
    none = functools.partial(components.find("balancing", "fixed_weights"), weights={"click": 0.0, "purchase": 0.0})
    balanced.compile(keras.optimizers.SGD(1.0), balance=none)
    x, y = data(base, 40)
    x, y = ({k: tf.constant(v) for k, v in part.items()} for part in (x, y))
    with tf.GradientTape() as tape:
        loss = base.compute_loss(x, y, base(x, training=True))
        penalty = sum(base.losses)
    wanted = tape.gradient(penalty, [v.value for v in base.trainable_variables], unconnected_gradients="zero")
    before = [np.asarray(v) for v in balanced.trainable_variables]
    found = balanced.train_step((x, y))
    assert float(found["loss"]) == pytest.approx(float(loss), rel=1e-5)  # of the head and of the layers
    assert float(penalty) > 0
    moved = {v.path: old - np.asarray(v) for v, old in zip(balanced.trainable_variables, before, strict=True)}
    for variable, gradient in zip(base.trainable_variables, wanted, strict=True):
        np.testing.assert_allclose(moved[variable.path], gradient, atol=1e-6, err_msg=variable.path)
    assert any(np.any(change) for change in moved.values())


def test_uncertainty_s_parameters_are_trained_by_the_optimizer_and_saved(tmp_path):
    model = build("uncertainty")
    fit(model, epochs=4)
    assert np.all(np.asarray(model.balance.state["log_variance"]) != 0)
    model.save_weights(tmp_path / "x.weights.h5")
    again = build("uncertainty")
    again.load_weights(tmp_path / "x.weights.h5")
    np.testing.assert_array_equal(again.balance.state["log_variance"], model.balance.state["log_variance"])
    assert "balance" not in {layer.name for layer in model.predictor.layers}


@pytest.mark.parametrize("method", ["adam", "adagrad", "rmsprop"])
def test_adatask_on_a_table_and_a_kernel_by_hand(method):
    model = build(None)
    balance = functools.partial(components.find("balancing", "adatask"), method=method)
    model.compile(keras.optimizers.SGD(0.1), balance=balance)
    x, y = data(model, 40)
    x, y = ({k: tf.constant(v) for k, v in part.items()} for part in (x, y))
    places = {v.path: i for i, v in enumerate(model.trainable_variables)}
    first, second = {}, {}
    for count in (1, 2):
        before = {path: np.asarray(model.trainable_variables[i]) for path, i in places.items()}
        _, by_loss = plain_update(model, (1, 1), (1, 1), x, y)
        model.train_step((x, y))
        for path in ("user_embedding/embeddings", "experts_0/kernel"):
            step = 0
            for name in by_loss:
                g, key = by_loss[name][places[path]], (path, name)
                if method == "adagrad":
                    second[key] = second.get(key, 0) + g**2
                    step = step + g / (np.sqrt(second[key]) + 1e-7)
                    continue
                decay = 0.999
                second[key] = decay * second.get(key, 0) + (1 - decay) * g**2
                if method == "rmsprop":
                    step = step + g / (np.sqrt(second[key]) + 1e-7)
                    continue
                first[key] = 0.9 * first.get(key, 0) + 0.1 * g
                corrected = second[key] / (1 - decay**count)
                step = step + first[key] / (1 - 0.9**count) / (np.sqrt(corrected) + 1e-7)
            moved = before[path] - np.asarray(model.trainable_variables[places[path]])
            np.testing.assert_allclose(moved, 0.1 * step, rtol=2e-2, atol=2e-4, err_msg=path)
    own = places["click_logit/kernel"]  # by the optimizer
    _, by_loss = plain_update(model, (1, 1), (1, 1), x, y)
    before = np.asarray(model.trainable_variables[own])
    model.train_step((x, y))
    expected = 0.1 * by_loss["click"][own]
    np.testing.assert_allclose(before - np.asarray(model.trainable_variables[own]), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("batch", ["next", "same"])
def test_bilevel_takes_turns(batch):
    model = combinations.build("parallel", "m3oe", "ranking")
    balance = functools.partial(components.find("balancing", "bilevel"), every=3, batch=batch)
    model.compile(keras.optimizers.SGD(0.5), balance=balance)
    x, y = data(model, 40)
    x, y = ({k: tf.constant(v) for k, v in part.items()} for part in (x, y))
    is_architecture = ["fusion" in v.path for v in model.trainable_variables]
    assert 0 < sum(is_architecture) < len(is_architecture)
    for step in range(6):
        before = [np.asarray(v) for v in model.trainable_variables]
        model.train_step((x, y))
        moved = [np.any(np.asarray(v) != old) for v, old in zip(model.trainable_variables, before, strict=True)]
        architecture = [m for m, is_it in zip(moved, is_architecture, strict=True) if is_it]
        network = [m for m, is_it in zip(moved, is_architecture, strict=True) if not is_it]
        is_turn = step % 3 == 2
        assert any(architecture) == is_turn
        assert any(network) == (batch == "same" or not is_turn)
        if step == 2:  # the first step of an Adam of its own is as long as the rate
            logits = np.concatenate([np.ravel(v) for v in model.trainable_variables if "fusion" in v.path])
            np.testing.assert_allclose(np.abs(logits), 0.5, rtol=1e-2)
    with pytest.raises(ValueError, match="must have `FusionWeight` layers"):
        build(None).compile(balance="bilevel")
    with pytest.raises(ValueError, match='must be 2 or more with `batch="next"`'):
        model.compile(balance=functools.partial(components.find("balancing", "bilevel"), every=1))


@pytest.mark.usefixtures("eager")
def test_bilevel_s_architecture_learns_from_other_batches():
    """Its weights move as by a step on the other batch after the network's; the batch's own have nothing to say."""
    models = []
    x, y = ({k: tf.constant(v) for k, v in part.items()} for part in data(build(None), 40))
    x["scenario"] = tf.ones_like(x["scenario"])
    other = x, {k: 1 - v for k, v in y.items()}
    for batch in (tf.data.Dataset.from_tensors(other), "same"):
        keras.utils.set_random_seed(0)
        model = combinations.build("parallel", "m3oe", "ranking")
        make = components.find("balancing", "bilevel")
        model.compile(keras.optimizers.SGD(0.5), balance=functools.partial(make, every=1, batch=batch))
        models.append(model)
    for model in models:
        model.fit(x, y, batch_size=40, epochs=1, verbose=0)
    moved = [[np.asarray(v) for v in model.trainable_variables if "fusion" in v.path] for model in models]
    rest = [[np.asarray(v) for v in model.trainable_variables if "fusion" not in v.path] for model in models]
    for a, b in zip(*rest, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)  # the network learns from its own batch
    there, here = (np.concatenate([m.ravel() for m in group]) for group in moved)
    assert np.corrcoef(there, here)[0, 1] < 0  # opposite labels


def fair_model(balance):
    """Group 2 has the feature that the labels follow, for another reason."""
    schema = Schema(
        [Feature("a", "user", "number"), Feature("b", "user", "number")],
        [Task("click"), Task("like")],
        Scenario(["market"], {("x",): "x", ("y",): "y"}),
    )
    keras.utils.set_random_seed(0)
    model = models.ranking(schema, share="shared_bottom", head="parallel")
    model.compile(keras.optimizers.Adam(1e-2), balance=balance)
    return model


def test_mta_f_by_hand():
    from tfmtr.balancing.mta_f import gap, mta_f

    p, rows = np.asarray([0.2, 0.6, 0.4, 0.9]), np.asarray([True, True, True, False])
    found = float(gap(tf.constant(p, tf.float32), tf.constant(rows), tf.constant([1, 1, 2, 2])))
    mean = np.mean(p[:3])
    assert found == pytest.approx(2 / 3 * (0.4 - mean) ** 2 + 1 / 3 * (0.4 - mean) ** 2, rel=1e-5)
    assert float(gap(tf.constant(p, tf.float32), tf.constant([False] * 4), tf.constant([1, 1, 2, 2]))) == 0
    far = float(gap(tf.constant(p, tf.float32), tf.constant(rows), tf.constant([2, 2, 70, 71])))
    assert far == pytest.approx(found)  # groups from the 64th on are one, and not lost

    model = fair_model(functools.partial(mta_f, weight=2.0))
    names = model.balance.names
    assert names[2:] == (
        "click_fairness_own", "click_fairness_shared", "like_fairness_own", "like_fairness_shared",
    )  # fmt: skip
    shared, own, _ = model.balance.balancer.objectives(tf.constant([1.0, 2, 4, 8, 16, 32]), {})
    assert (float(shared), float(own)) == (1 + 2 + 2 * (8 + 32), 1 + 2 + 2 * (4 + 16))
    x = {"scenario": tf.constant([1, 1, 2, 2])}
    outputs = {"click": tf.constant(p[:, None], tf.float32), "like": tf.constant(1 - p[:, None], tf.float32)}
    labels = {"click": tf.constant([0.0, 0.0, 0.0, 1.0]), "like": tf.constant([1.0, 0.0, 0.0, 0.0])}
    losses = model.balance.balancer.losses(outputs, labels, x)
    assert float(losses["click_fairness_own"]) == 0  # one row has a like and no click: no gap
    both = np.asarray([0.6, 0.4])  # neither click nor like
    assert float(losses["click_fairness_shared"]) == pytest.approx(np.var(both), rel=1e-5)
    # A parameter of the click's tower is not shared, though click and its penalties reach it.
    assert "click_logit/kernel" in paths(model, shared=False)
    with pytest.raises(ValueError, match=r"`group` must be one of the inputs .* Received: group='a'"):
        fair_model(functools.partial(mta_f, group="a"))


def test_mta_f_brings_the_groups_false_positives_together():
    rng = np.random.default_rng(0)
    rows = 4000
    group = rng.integers(1, 3, rows)
    truth = rng.normal(size=rows)
    x = {"a": (truth + rng.normal(size=rows)).astype("float32"), "b": (group == 2).astype("float32")}
    x["scenario"] = group.astype("int32")
    y = {name: (truth + (group == 2) * 0.8 > cut).astype("float32") for name, cut in (("click", 0.5), ("like", 1.0))}
    gaps = {}
    for weight in (0.0, 50.0):
        model = fair_model(functools.partial(components.find("balancing", "mta_f"), weight=weight))
        model.fit(x, y, batch_size=200, epochs=4, verbose=0)
        p = model.predict(x, verbose=0)["click"][:, 0]
        negative = y["click"] == 0
        gaps[weight] = abs(p[negative & (group == 1)].mean() - p[negative & (group == 2)].mean())
    assert gaps[50.0] < 0.5 * gaps[0.0]


def test_bad_input():
    with pytest.raises(ValueError, match=r"`balance` must be one of .* Did you mean 'pcgrad'"):
        build(None).compile(balance="pcgrap")
