"""Balancers that combine gradients: each by its equation, or against SciPy."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf
from helpers.balancing_oracles import LOSSES, PAIRS, problem, run, state_of

from tfmtr.balancing.aligned_mtl import aligned_mtl
from tfmtr.balancing.cagrad import cagrad
from tfmtr.balancing.db_mtl import db_mtl
from tfmtr.balancing.fair_grad import fair_grad
from tfmtr.balancing.grad_drop import grad_drop
from tfmtr.balancing.grad_norm import grad_norm
from tfmtr.balancing.grad_vac import grad_vac
from tfmtr.balancing.imtl import imtl
from tfmtr.balancing.metabalance import metabalance
from tfmtr.balancing.mgda import mgda
from tfmtr.balancing.nash_mtl import nash_mtl
from tfmtr.balancing.pcgrad import pcgrad

EACH_PAIR = pytest.mark.parametrize("name", PAIRS)
GRADIENT = [
    aligned_mtl, cagrad, db_mtl, fair_grad, grad_drop, grad_norm, grad_vac, imtl, metabalance, mgda, nash_mtl, pcgrad,
]  # fmt: skip


AUTHORS = json.loads(Path(__file__).with_name("authors.json").read_text(encoding="utf-8"))


def random_gradients(size, width=8, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(size, width)) * rng.uniform(0.1, 3, (size, 1)) + 0.3 * rng.normal(size=width)


def unit(g):
    return g / np.linalg.norm(g, axis=-1, keepdims=True)


@EACH_PAIR
def test_pcgrad(name):
    a, b = PAIRS[name]
    expected = a - min(a @ b, 0) / (b @ b) * b + b - min(a @ b, 0) / (a @ a) * a
    found, own, _ = run(pcgrad(problem()), PAIRS[name])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(own, [1, 1])


def angles(*degrees):
    radians = np.radians(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1)


def sums_by_order(gradients, turn):
    """The update for each of the eight orders in which three tasks' gradients may be turned by the two others'."""
    options = {}
    for order in range(8):
        total = 0
        for i in range(3):
            g = gradients[i].copy()
            for j in [j for j in range(3) if j != i][:: -1 if order >> i & 1 else 1]:
                g = turn(g, i, j)
            total = total + g
        options[order] = total
    return options


def order_of(found, options):
    near = [order for order, g in options.items() if np.allclose(found, g, rtol=1e-4, atol=1e-5)]
    assert near
    return near[0]


@pytest.mark.parametrize(
    "gradients",
    [
        np.asarray([[2.0, 0.1, 0.3], [-1.0, 1.5, 0.2], [-0.8, -1.2, 0.4]]),  # each against each
        angles(0, 175, 200),  # the first is turned until it conflicts with itself, which is let be
    ],
)
def test_pcgrad_of_three_tasks_projects_in_random_order(gradients):
    def turn(g, i, j):
        return g - min(g @ gradients[j], 0) / (gradients[j] @ gradients[j]) * gradients[j]

    balancer = pcgrad(problem(3), seed=1)
    state, seen, options = state_of(balancer), set(), sums_by_order(gradients, turn)
    for _ in range(20):
        found, _, state = run(balancer, gradients, np.ones(3), state)
        seen.add(order_of(found, options))
    assert len(seen) > 1


def test_grad_vac_of_three_tasks_turns_in_random_order_and_follows_the_angles():
    gradients, rate, known = np.asarray([[2.0, 0.1, 0.3], [-1.0, 1.5, 0.2], [0.8, 1.2, 0.4]]), 0.1, np.zeros((3, 3))
    balancer = grad_vac(problem(3), rate=rate)
    state, seen = state_of(balancer), set()
    for _ in range(20):

        def turn(g, i, j):
            other, rho = gradients[j], known[i, j]  # noqa: B023 - used within the loop only
            phi = unit(g) @ unit(other)
            if phi >= rho:
                return g
            factor = np.linalg.norm(g) * (rho * np.sqrt(1 - phi**2) - phi * np.sqrt(1 - rho**2))
            return g + factor / (np.linalg.norm(other) * np.sqrt(1 - rho**2)) * other

        found, _, state = run(balancer, gradients, np.ones(3), state)
        seen.add(order_of(found, sums_by_order(gradients, turn)))
        assert not np.any(np.diagonal(state["rho"]))
        known = np.asarray(state["rho"])
    assert len(seen) > 1


@EACH_PAIR
def test_grad_vac_with_a_target_of_0_is_pcgrad_and_the_target_moves(name):
    gradients = PAIRS[name]
    found, _, state = run(grad_vac(problem(), rate=0.25), gradients)
    np.testing.assert_allclose(found, run(pcgrad(problem()), gradients)[0], rtol=1e-4, atol=1e-5)
    cosine = unit(gradients)[0] @ unit(gradients)[1]
    np.testing.assert_allclose(np.asarray(state["rho"])[[0, 1], [1, 0]], [0.25 * cosine] * 2, rtol=1e-4, atol=1e-6)


def test_grad_vac_reaches_the_target_angle():
    gradients, rho = PAIRS["conflicting"], 0.6
    state = {"rho": tf.fill((2, 2), rho), "step": tf.constant(0)}
    a, b = gradients
    phi = unit(a) @ unit(b)
    turned = []
    for g, other in ((a, b), (b, a)):
        factor = np.linalg.norm(g) * (rho * np.sqrt(1 - phi**2) - phi * np.sqrt(1 - rho**2))
        turned.append(g + factor / (np.linalg.norm(other) * np.sqrt(1 - rho**2)) * other)
        assert unit(turned[-1]) @ unit(other) == pytest.approx(rho)
    found, _, _ = run(grad_vac(problem()), gradients, state=state)
    np.testing.assert_allclose(found, sum(turned), rtol=1e-4)


@EACH_PAIR
def test_mgda_of_two_tasks_in_closed_form(name):
    a, b = PAIRS[name]
    w = 0.5 if name == "equal" else np.clip((b - a) @ b / ((a - b) @ (a - b)), 0, 1)
    found, own, _ = run(mgda(problem()), PAIRS[name])
    np.testing.assert_allclose(found, w * a + (1 - w) * b, atol=1e-4)
    np.testing.assert_allclose(own, [1, 1])


def scipy_simplex(objective, size):
    """The least value over the simplex, from several starts."""
    found = []
    for start in [np.full(size, 1 / size), *np.eye(size) * 0.9 + 0.1 / size]:
        result = scipy.optimize.minimize(
            objective, start, method="SLSQP", bounds=[(0, 1)] * size, tol=1e-14,
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1}, options={"maxiter": 1000},
        )  # fmt: skip
        found.append((result.fun, tuple(result.x)))
    return np.asarray(min(found)[1])


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("seed", range(4))
def test_mgda_against_scipy(size, seed):
    gradients = random_gradients(size, seed=seed)
    w = scipy_simplex(lambda w: np.sum((w @ gradients) ** 2), size)
    found, _, _ = run(mgda(problem(size)), gradients, np.ones(size))
    assert np.sum(found**2) == pytest.approx(np.sum((w @ gradients) ** 2), rel=1e-3, abs=1e-6)


def least_norm(gram):
    """The least `w gram w` over the simplex: the best of the solutions on every set of tasks, none of them negative."""
    size, found = len(gram), []
    for chosen in itertools.chain(*(itertools.combinations(range(size), k) for k in range(1, size + 1))):
        w = np.linalg.solve(gram[np.ix_(chosen, chosen)], np.ones(len(chosen)))
        w = w / w.sum()
        if (w >= 0).all():
            found.append(w @ gram[np.ix_(chosen, chosen)] @ w)
    return np.sqrt(min(found))


@pytest.mark.parametrize("alike", [0.0, 1.0, 5.0])
@pytest.mark.parametrize("seed", range(3))
def test_mgda_of_lengths_from_1_to_1000_is_the_shortest(seed, alike):
    rng = np.random.default_rng(seed)
    gradients = unit(rng.normal(size=(5, 8)) + alike * rng.normal(size=8)) * np.logspace(0, 3, 5)[:, None]
    gradients = gradients.astype("float32").astype(float)
    found, _, _ = run(mgda(problem(5)), gradients, np.ones(5))
    assert np.linalg.norm(found) == pytest.approx(least_norm(gradients @ gradients.T), rel=1e-5)


@pytest.mark.parametrize(("normalize", "by"), [("l2", [3, np.sqrt(2)]), ("loss", LOSSES), ("loss+", None)])
def test_mgda_normalises_first(normalize, by):
    gradients = PAIRS["orthogonal"]
    by = np.asarray([3, np.sqrt(2)]) * LOSSES if by is None else np.asarray(by)
    expected, _, _ = run(mgda(problem()), gradients / by[:, None])
    found, _, _ = run(mgda(problem(), normalize=normalize), gradients)
    np.testing.assert_allclose(found, expected, rtol=1e-3)


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("seed", range(4))
def test_cagrad_against_scipy(size, seed):
    """By its definition: the largest least improvement in a ball around the mean, over all directions."""
    gradients, c = random_gradients(size, seed=seed), 0.5
    mean = gradients.mean(axis=0)
    found, _, _ = run(cagrad(problem(size), c=c), gradients, np.ones(size))
    d = found * (1 + c**2) / size
    assert np.linalg.norm(d - mean) <= c * np.linalg.norm(mean) * (1 + 1e-4)

    def worst(x):
        return -x[-1]

    constraints = [
        {"type": "ineq", "fun": lambda x: gradients @ x[:-1] - x[-1]},
        {"type": "ineq", "fun": lambda x: c**2 * mean @ mean - np.sum((x[:-1] - mean) ** 2)},
    ]
    start = np.append(mean, (gradients @ mean).min())
    best = scipy.optimize.minimize(worst, start, method="SLSQP", constraints=constraints, tol=1e-12)
    assert (gradients @ d).min() == pytest.approx(-best.fun, rel=2e-3, abs=1e-4)


@EACH_PAIR
def test_cagrad_with_radius_0_is_the_sum(name):
    np.testing.assert_allclose(run(cagrad(problem(), c=0), PAIRS[name])[0], PAIRS[name].sum(axis=0), rtol=1e-5)


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("seed", range(4))
def test_nash_mtl_against_scipy(size, seed):
    gradients = random_gradients(size, seed=seed)
    gram = gradients @ gradients.T
    solved = scipy.optimize.minimize(
        lambda w: w @ gram @ w / 2 - np.log(w).sum(), np.ones(size), jac=lambda w: gram @ w - 1 / w,
        bounds=[(1e-9, None)] * size, tol=1e-14, options={"maxiter": 5000},
    ).x  # fmt: skip
    found, own, _ = run(nash_mtl(problem(size), max_norm=0), gradients, np.ones(size))
    np.testing.assert_allclose(gram @ own, 1 / own, rtol=1e-3)
    np.testing.assert_allclose(own, solved, rtol=1e-2)
    np.testing.assert_allclose(found, own @ gradients, rtol=1e-4)
    np.testing.assert_allclose(found @ found, size, rtol=1e-3)  # claim 3.1: w G w = number of tasks


def test_nash_mtl_cuts_the_norm_of_the_shared_update():
    found, own, _ = run(nash_mtl(problem(), max_norm=0.5), PAIRS["conflicting"])
    assert np.linalg.norm(found) == pytest.approx(0.5, rel=1e-4)
    assert np.linalg.norm(own @ PAIRS["conflicting"]) == pytest.approx(np.sqrt(2), rel=1e-3)
    np.testing.assert_allclose(
        run(nash_mtl(problem(), max_norm=50.0), PAIRS["conflicting"])[0], own @ PAIRS["conflicting"]
    )


@pytest.mark.parametrize("alpha", [0.5, 2.0, 5.0])
@pytest.mark.parametrize("size", [2, 4])
def test_fair_grad_solves_its_equation(alpha, size):
    gradients = random_gradients(size, seed=3)
    _, own, _ = run(fair_grad(problem(size), alpha=alpha, max_norm=0, weighs_own=True), gradients, np.ones(size))
    gram = gradients @ gradients.T
    np.testing.assert_allclose(gram @ own, own ** (-1 / alpha), rtol=1e-3)
    assert (own > 0).all()


def test_fair_grad_with_alpha_1_is_nash():
    gradients = random_gradients(3, seed=2)
    fair, nash = (
        run(make, gradients, np.ones(3))
        for make in (fair_grad(problem(3), alpha=1.0, weighs_own=True), nash_mtl(problem(3)))
    )
    np.testing.assert_allclose(fair[0], nash[0], rtol=1e-4)
    np.testing.assert_allclose(fair[1], nash[1], rtol=1e-4)


@pytest.mark.parametrize("case", ["fair_grad free", "fair_grad cut", "fair_grad small"])
def test_fair_grad_is_that_of_its_authors(case):
    """Theirs stops at SciPy's own tolerance, and on gradients of 1e-3 far from the point that solves the equation."""
    theirs = AUTHORS[case]
    gradients = np.asarray(theirs["gradients"])
    found, own, _ = run(
        fair_grad(problem(len(gradients)), alpha=theirs["alpha"], max_norm=theirs["max_norm"]), gradients,
        np.ones(len(gradients)),
    )  # fmt: skip
    np.testing.assert_allclose(found, theirs["shared"], rtol=0.1 if case == "fair_grad small" else 2e-3)
    np.testing.assert_array_equal(own, theirs["own"])


def test_metabalance_is_that_of_its_authors_without_options():
    theirs = AUTHORS["metabalance"]
    balancer, state = metabalance(problem()), None
    for gradients, update in zip(theirs["gradients"], theirs["updates"], strict=True):
        found, _, state = run(balancer, gradients, state=state)
        np.testing.assert_allclose(found, update, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [2, 4])
def test_aligned_mtl(size):
    gradients = random_gradients(size, seed=1)
    u, singular, v = np.linalg.svd(gradients, full_matrices=False)
    expected = {"min": singular.min(), "median": np.sort(singular)[(size - 1) // 2]}
    expected["rmse"] = np.sqrt(np.mean(singular**2))
    for scale, sigma in expected.items():
        found, _, _ = run(aligned_mtl(problem(size), scale=scale), gradients, np.ones(size))
        np.testing.assert_allclose(found, sigma * (u @ v).sum(axis=0), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("scale", ["min", "median", "rmse"])
@pytest.mark.parametrize(
    ("gradients", "expected"),
    [
        ([[0.1, 0.2, 0.3], [0.07, 0.14, 0.21]], {"min": [0.17, 0.34, 0.51]}),  # parallel: all scales are one
        # The third is the mean of the others.
        ([[0.1, 0.2, 0.3, 0.7], [0.3, -0.1, 0.2, 0.1], [0.2, 0.05, 0.25, 0.4]],
         {"min": [0.3362, -0.0161, 0.3201, 0.3864]}),
    ],
)  # fmt: skip
def test_aligned_mtl_of_gradients_that_depend_takes_rounding_for_no_direction(gradients, expected, scale):
    """Values of SamsungLabs/MTL, optim/aligned/solver.py, whose threshold is the largest times tasks times float32's
    epsilon: in float32 zeros come out at 1e-8."""
    found, _, _ = run(aligned_mtl(problem(len(gradients)), scale=scale), np.asarray(gradients, "float32"))
    if scale == "min" or len(gradients) == 2:
        np.testing.assert_allclose(found, expected["min"], atol=1e-4)
    else:  # longer, along the same
        direction = np.asarray(expected["min"]) / np.linalg.norm(expected["min"])
        np.testing.assert_allclose(found / np.linalg.norm(found), direction, atol=1e-3)


def test_aligned_mtl_of_equal_gradients_has_one_direction():
    found, _, _ = run(aligned_mtl(problem()), PAIRS["equal"])
    np.testing.assert_allclose(unit(found), unit(PAIRS["equal"][0]), rtol=1e-4)


@pytest.mark.parametrize("gradients", [PAIRS["conflicting"], PAIRS["orthogonal"], random_gradients(4, seed=5)])
def test_imtl_has_equal_projections_on_every_scaled_gradient(gradients):
    size = len(gradients)
    log_scale = np.linspace(-0.5, 0.5, size).astype("float32")
    found, own, _ = run(imtl(problem(size)), gradients, np.ones(size), {"log_scale": tf.constant(log_scale)})
    scaled = gradients * np.exp(log_scale)[:, None]
    projections = unit(scaled) @ found
    np.testing.assert_allclose(projections, np.full(size, projections[0]), rtol=1e-3)
    a = np.linalg.lstsq(scaled.T, found, rcond=None)[0]
    assert a.sum() == pytest.approx(1, rel=1e-3)
    np.testing.assert_allclose(own, np.exp(log_scale), rtol=1e-5)


def test_imtl_learns_scales_that_make_every_loss_1():
    balancer = imtl(problem(), learning_rate=0.1)
    state = state_of(balancer)
    for _ in range(300):
        _, own, state = run(balancer, PAIRS["orthogonal"], LOSSES, state)
    np.testing.assert_allclose(own * LOSSES, [1, 1], rtol=1e-2)


def test_imtl_lets_the_scale_of_a_task_without_labels_be():
    _, _, state = run(imtl(problem()), [[1.0, 2.0], [0.0, 0.0]], [0.7, 0.0])
    scales = np.asarray(state["log_scale"])
    assert scales[0] > 0
    assert scales[1] == 0


@pytest.mark.parametrize(("name", "losses"), [("orthogonal", [0.4, 0.2]), ("conflicting", [0.68, 0.03])])
def test_grad_norm_by_hand(name, losses):
    """In the second case the rates of training, not the norms, decide who gets more."""
    gradients, losses = PAIRS[name], np.asarray(losses)
    w, first, norms = np.asarray([1.2, 0.8]), np.asarray([0.8, 0.2]), np.linalg.norm(gradients, axis=1)
    state = {"weights": tf.constant(w, tf.float32), "first": tf.constant(first, tf.float32)}
    found, own, state = run(grad_norm(problem(), alpha=1.0, learning_rate=0.1), gradients, losses, state)
    np.testing.assert_allclose(found, w @ gradients, rtol=1e-5)
    np.testing.assert_allclose(own, w, rtol=1e-6)
    rate = losses / first / np.mean(losses / first)
    target = np.mean(w * norms) * rate
    assert (w[0] * norms[0] > target[0]) == (name == "orthogonal")
    new = w - 0.1 * np.sign(w * norms - target) * norms / norms.mean()
    np.testing.assert_allclose(state["weights"], 2 * new / new.sum(), rtol=1e-5)


def test_grad_norm_brings_norms_together():
    balancer = grad_norm(problem(), alpha=0.0, learning_rate=0.01)
    state = state_of(balancer)
    for _ in range(300):
        _, own, state = run(balancer, PAIRS["orthogonal"], LOSSES, state)
    np.testing.assert_allclose(own[0] * 3, own[1] * np.sqrt(2), rtol=0.05)


@EACH_PAIR
def test_db_mtl(name):
    logarithmic = PAIRS[name] / LOSSES[:, None]
    norms = np.linalg.norm(logarithmic, axis=1)
    found, own, _ = run(db_mtl(problem()), PAIRS[name])
    np.testing.assert_allclose(found, norms.max() * unit(logarithmic).sum(axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(own, 1 / LOSSES, rtol=1e-5)


@pytest.mark.parametrize("strategy", ["reduce", "enlarge", "both"])
def test_metabalance_by_hand(strategy):
    gradients, before = PAIRS["orthogonal"], np.asarray([[1.0, 2.0]])
    for main, place in (("a", 0), ("b", 1)):
        balancer = metabalance(problem(), main=main, relax=0.4, beta=0.75, strategy=strategy)
        found, _, state = run(balancer, gradients, state={"norms": tf.constant(before, tf.float32)})
        m = 0.75 * before[0] + 0.25 * np.linalg.norm(gradients, axis=1)
        np.testing.assert_allclose(state["norms"][0], m, rtol=1e-5)
        ratio = m[place] / m
        touched = {"reduce": ratio < 1, "enlarge": ratio > 1, "both": ratio == ratio}[strategy]
        factor = np.where(touched, 0.4 * ratio + 0.6, 1)
        np.testing.assert_allclose(found, factor @ gradients, rtol=1e-5)


def test_metabalance_with_full_relaxation_makes_auxiliary_gradients_as_long_as_the_main_one():
    balancer = metabalance(problem(), relax=1.0, beta=0.0, strategy="both")
    found, _, _ = run(balancer, PAIRS["orthogonal"])
    np.testing.assert_allclose(found, 3 * unit(PAIRS["orthogonal"]).sum(axis=0), rtol=1e-5)


def test_grad_drop_keeps_one_sign_by_its_share():
    gradients = np.stack([np.full(4000, 3.0), np.full(4000, -1.0)])
    found, _, state = run(grad_drop(problem(shapes=((4000,),))), gradients)
    assert set(np.round(found, 5)) == {3.0, -1.0}
    assert np.mean(found > 0) == pytest.approx(0.75, abs=0.03)
    assert int(state["step"]) == 1
    again, _, _ = run(grad_drop(problem(shapes=((4000,),))), gradients, state=state)
    assert np.any(again != found)
    leaked, _, _ = run(grad_drop(problem(shapes=((4000,),)), leak=0.5), gradients)
    assert set(np.round(leaked, 5)) == {2.5, 0.5 * 3 - 1}
    same, _, _ = run(grad_drop(problem(shapes=((4000,),)), leak=1.0), gradients)
    np.testing.assert_allclose(same, 2.0)


def test_parameters_are_merged_one_by_one():
    gradients = tf.constant(np.random.default_rng(0).normal(size=(2, 50)), tf.float32)
    two = problem(shapes=((50,), (50,)))
    balancer = metabalance(two)
    _, updates = balancer.merge(gradients, 1, tf.constant(LOSSES, tf.float32), state_of(balancer))
    assert np.any(updates["norms"], axis=1).tolist() == [False, True]
    balancer = grad_drop(two)
    state = state_of(balancer)
    first, updates = balancer.merge(gradients, 0, None, state)
    assert updates["step"] == 0  # the draws of a step are one set
    second, updates = balancer.merge(gradients, 1, None, state)
    assert updates["step"] == 1
    assert np.any(np.asarray(first) != np.asarray(second))  # and each parameter has its own


@pytest.mark.parametrize("make", GRADIENT)
@pytest.mark.parametrize("name", PAIRS)
def test_where_gradients_agree_the_update_goes_their_way(make, name):
    found, _, _ = run(make(problem()), PAIRS[name])
    assert np.isfinite(found).all()
    if name == "equal":
        np.testing.assert_allclose(unit(found), unit(PAIRS["equal"][0]), rtol=1e-3)


@pytest.mark.parametrize("make", [cagrad, mgda, nash_mtl, fair_grad, aligned_mtl, imtl])
def test_no_task_gets_worse_where_gradients_conflict(make):
    gradients = np.asarray([[4.0, 0.0], [-1.0, 1.0]])
    assert gradients[1] @ gradients.sum(axis=0) < 0  # the plain sum makes the second worse
    options = {"c": 0.9} if make is cagrad else {}
    found, _, _ = run(make(problem(), **options), gradients)
    assert (gradients @ found > -1e-4).all()


@pytest.mark.parametrize("make", GRADIENT)
def test_tasks_without_a_gradient_or_a_label_stay_finite(make):
    balancer = make(problem())
    for gradients, losses in (
        ([[1.0, 2.0, 0.0], [0.0, 0.0, 0.0]], [0.7, 0.0]),
        ([[0.0, 0.0, 0.0], [1.0, 2.0, 0.0]], [0.0, 0.4]),
        ([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]], [0.0, 0.0]),
        ([[1e-20, 0.0, 0.0], [1e10, 0.0, 0.0]], [1e-20, 1e5]),
    ):
        state = state_of(balancer)
        for _ in range(3):
            found, own, state = run(balancer, gradients, losses, state)
            assert np.isfinite(found).all(), (gradients, found)
            assert own is None or np.isfinite(own).all()
            assert all(np.isfinite(value).all() for value in state.values())
        live = np.asarray(gradients)[np.asarray(losses) > 0.1]
        if len(live) == 1 and np.abs(live).max() < 10:  # the other task alone decides the direction
            np.testing.assert_allclose(unit(found), unit(live[0]), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("make", GRADIENT)
def test_one_loss_is_refused(make):
    with pytest.raises(ValueError, match=rf"`balance={make.__name__}` balances two or more losses"):
        make(problem(1))


def test_bad_options():
    for make, options, message in (
        (mgda, {"normalize": "l1"}, "`normalize` must be one of"),
        (cagrad, {"c": 1.5}, r"`c` must be in \[0, 1\]"),
        (grad_vac, {"rate": -1}, r"`rate` must be in \[0, 1\]"),
        (imtl, {"learning_rate": 0}, "`learning_rate` must be positive"),
        (grad_norm, {"alpha": -1}, "`alpha` must not be negative"),
        (nash_mtl, {"max_norm": -1}, "`max_norm` must be positive"),
        (fair_grad, {"alpha": 0}, "`alpha` must be positive"),
        (aligned_mtl, {"scale": "max"}, "`scale` must be one of"),
        (metabalance, {"main": "z"}, "`main` must be one of"),
        (metabalance, {"strategy": "grow"}, "`strategy` must be one of"),
        (grad_drop, {"leak": 2}, r"`leak` must be in \[0, 1\]"),
    ):
        with pytest.raises(ValueError, match=message):
            make(problem(), **options)
