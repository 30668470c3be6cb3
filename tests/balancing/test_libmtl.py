"""LibMTL's updates, which `make_libmtl.py` wrote down, as a second oracle."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.balancing_oracles import problem, run, weights

tf = pytest.importorskip("tensorflow")
from tfmtr.balancing.cagrad import cagrad  # noqa: E402
from tfmtr.balancing.db_mtl import db_mtl  # noqa: E402
from tfmtr.balancing.dynamic_weight_average import dynamic_weight_average  # noqa: E402
from tfmtr.balancing.equal import equal  # noqa: E402
from tfmtr.balancing.geometric import geometric  # noqa: E402
from tfmtr.balancing.grad_norm import grad_norm  # noqa: E402
from tfmtr.balancing.grad_vac import grad_vac  # noqa: E402
from tfmtr.balancing.imtl import imtl  # noqa: E402
from tfmtr.balancing.mgda import mgda  # noqa: E402
from tfmtr.balancing.pcgrad import pcgrad  # noqa: E402
from tfmtr.balancing.stch import stch  # noqa: E402
from tfmtr.balancing.uncertainty import uncertainty  # noqa: E402

FOUND = json.loads(Path(__file__).with_name("libmtl.json").read_text(encoding="utf-8"))
SCALES, SOFTMAX, HISTORY = [0.2, -0.4, 0.1], [0.3, -0.1, 0.0], np.asarray([[0.9, 0.8], [0.6, 0.35], [1.2, 1.19]])
CASES = [(pair, method) for pair, updates in FOUND["updates"].items() for method in updates]


def softmax(x):
    return np.exp(x) / np.sum(np.exp(x))


def ours(method, gradients):
    """The shared update of our balancer at the state that LibMTL's had."""
    size = len(gradients)
    losses, a = np.asarray(FOUND["losses"][:size]), problem(size)
    before, last = HISTORY[:size].T.astype("float32")
    if method == "equal":
        return weights(equal(a), losses)[1] @ gradients
    if method == "geometric":
        return weights(geometric(a), losses)[1] @ gradients
    if method == "uncertainty":  # LibMTL halves every loss; ours are halved where the paper's are
        state = {"log_variance": tf.constant(SCALES[:size])}
        return weights(uncertainty(a), losses, state)[1] @ gradients / 2
    if method == "dynamic_weight_average":
        zero = tf.constant(0)
        state = {"before": before, "last": last, "periods": tf.constant(2), "steps": zero, "total": tf.zeros(size)}
        return weights(dynamic_weight_average(a), losses, state)[1] @ gradients
    name, _, normalize = method.partition(" ")
    if name == "mgda":
        return run(mgda(a, normalize=normalize), gradients, losses)[0]
    if name == "cagrad":  # theirs near the mean of the gradients, ours near the sum
        return run(cagrad(a, c=0.5), gradients, losses)[0] / size
    states = {
        "grad_norm": {"weights": size * softmax(np.asarray(SOFTMAX[:size], "float32")), "first": before},
        "grad_vac": {"rho": tf.fill((size, size), 0.6), "step": tf.constant(0)},
        "imtl": {"log_scale": tf.constant(SCALES[:size])},
        "pcgrad": None,
    }
    make = {"grad_norm": grad_norm, "grad_vac": grad_vac, "imtl": imtl, "pcgrad": pcgrad}[name]
    return run(make(a), gradients, losses, states[name])[0]


@pytest.mark.parametrize(("pair", "method"), CASES)
def test_the_update_is_that_of_libmtl(pair, method):
    found = ours(method, np.asarray(FOUND["gradients"][pair]))
    # LibMTL keeps MGDA's weights in [0.001, 0.999] and stops at a change of 1e-5, CAGrad at SciPy's own tolerance.
    tolerance = 5e-3 if method.startswith(("mgda", "cagrad")) else 1e-4
    np.testing.assert_allclose(found, FOUND["updates"][pair][method], rtol=tolerance, atol=tolerance)


def test_every_method_that_libmtl_shares_is_there():
    methods = {method.partition(" ")[0] for _, method in CASES}
    assert methods == {
        "cagrad", "dynamic_weight_average", "equal", "geometric", "grad_norm", "grad_vac", "imtl", "mgda", "pcgrad",
        "uncertainty",
    }  # fmt: skip


# What LibMTL's repository, later than its release, makes of three tasks.
LATER = np.asarray([[1, 2, 0, 0.5], [0.1, -0.1, 0.1, 0.3], [3, 0, -2, 1]], "float32")
LATER_LOSSES = np.asarray([0.7, 0.3, 1.1], "float32")


def test_db_mtl_is_that_of_the_repository_without_moving_averages():
    shared, own, _ = run(db_mtl(problem(3)), LATER, LATER_LOSSES)
    np.testing.assert_allclose(shared, [5.1937418, 1.9871477, -0.8362514, 4.5971513], rtol=1e-5)
    np.testing.assert_allclose(own, [1.4285715, 3.3333333, 0.9090909], rtol=1e-6)


def test_stch_is_that_of_the_repository():
    """At mu 0.5, with reference losses of 1, 0.5 and 1."""
    warm = {"total": tf.constant([1.0, 0.5, 1.0]), "steps": tf.constant(1)}
    _, found, _ = weights(stch(problem(3), mu=0.5, warmup=1), LATER_LOSSES, warm)
    np.testing.assert_allclose(found, [1.0194173, 1.7475728, 1.6019417], rtol=1e-5)
    np.testing.assert_allclose(found @ LATER, [6, 1.8640773, -3.0291262, 2.635922], rtol=1e-5)
