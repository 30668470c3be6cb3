"""The heads that reweight clicked rows: oracles of their losses, and gradients that must not flow."""

import numpy as np
import pytest
from helpers.head_oracles import CLICK_AND_PURCHASE, LABELS, LOGITS, P, cross_entropy, losses_and_gradients, nan

from tfmtr.heads.dcmt import dcmt
from tfmtr.heads.escm2 import escm2
from tfmtr.heads.multi_dr import multi_dr
from tfmtr.heads.multi_ipw import multi_ipw

O = np.asarray(LABELS["click"])  # noqa: E741 - the papers' letter
ERROR = cross_entropy(P["purchase"], LABELS["purchase"])
IMPUTATION = np.asarray([0.4, -1.0, 0.2, 2.0])
DR_LOGITS = {**LOGITS, "purchase_imputation": IMPUTATION}
IMPUTED = np.log1p(np.exp(IMPUTATION))
OPPOSITE = np.asarray([0.1, 1.5, -0.6, 2.0])
DCMT_LOGITS = {**LOGITS, "purchase_counterfactual": OPPOSITE}
CTR_LOSS = cross_entropy(P["click"], O).mean()


def own_click_gradient():
    """Of the click's own cross-entropy: the conversion's loss must add nothing to it."""
    return (P["click"] - O) / 4


def test_multi_ipw():
    losses, gradients = losses_and_gradients(multi_ipw(CLICK_AND_PURCHASE), LOGITS, LABELS)
    assert losses == pytest.approx({"click": CTR_LOSS, "purchase": (O * ERROR / P["click"]).mean()}, rel=1e-5)
    np.testing.assert_allclose(gradients["click"], own_click_gradient(), rtol=1e-4)  # no gradient into the propensity
    expected = O * (P["purchase"] - LABELS["purchase"]) / P["click"] / 4
    np.testing.assert_allclose(gradients["purchase"], expected, rtol=1e-4)


def test_a_small_propensity_is_clipped():
    logits = {"click": [-20.0], "purchase": [0.0]}
    losses, _ = losses_and_gradients(
        multi_ipw(CLICK_AND_PURCHASE, clip=0.1), logits, {"click": [1.0], "purchase": [0.0]}
    )
    assert losses["purchase"] == pytest.approx(np.log(2) / 0.1, rel=1e-5)


@pytest.mark.parametrize(
    ("head", "loss", "expected"),
    [
        (multi_ipw, "purchase", np.log(2) / 0.02),
        (escm2, "purchase|click", 0.1 * np.log(2) / 0.02),
        (dcmt, "purchase|click", np.log(2) / 0.02),
    ],
)
def test_the_smallest_propensity_without_options(head, loss, expected):
    logits = {"click": [-20.0], "purchase": [0.0], "purchase_counterfactual": [0.0]}
    made = head(CLICK_AND_PURCHASE)
    logits = {name: logits[name] for name in made.towers()}
    losses, _ = losses_and_gradients(made, logits, {"click": [1.0], "purchase": [0.0]})
    assert losses[loss] == pytest.approx(expected, rel=1e-5)


def test_multi_dr_s_smallest_propensity_without_options():
    logits = {"click": [-20.0], "purchase": [0.0], "purchase_imputation": [-50.0]}  # nothing imputed
    losses, _ = losses_and_gradients(multi_dr(CLICK_AND_PURCHASE), logits, {"click": [1.0], "purchase": [0.0]})
    assert losses["purchase"] == pytest.approx(np.log(2) / 0.02, rel=1e-5)
    assert losses["purchase_imputation"] == pytest.approx(np.log(2) ** 2 / 0.02, rel=1e-5)


def test_escm2_s_weights_without_options():
    losses, _ = losses_and_gradients(escm2(CLICK_AND_PURCHASE), LOGITS, LABELS)
    entire = cross_entropy(P["click"] * P["purchase"], LABELS["purchase"]).mean()
    risk = (O * ERROR / P["click"]).mean()
    assert losses == pytest.approx({"click": CTR_LOSS, "purchase|click": 0.1 * risk, "purchase": entire}, rel=1e-5)


def test_dcmt_s_towers_start_at_the_mean_and_at_its_opposite():
    towers = dcmt(CLICK_AND_PURCHASE).towers()  # of 0.3 clicks 0.06 purchases
    starts = {name: 1 / (1 + np.exp(-tower.start)) for name, tower in towers.items()}
    assert starts == pytest.approx({"click": 0.3, "purchase": 0.2, "purchase_counterfactual": 0.8})


def test_dcmt_s_constraint_without_options():
    losses, _ = losses_and_gradients(dcmt(CLICK_AND_PURCHASE), DCMT_LOGITS, LABELS)
    free, _ = losses_and_gradients(dcmt(CLICK_AND_PURCHASE, constraint_weight=0.0), DCMT_LOGITS, LABELS)
    constraint = np.abs(1 - P["purchase"] - 1 / (1 + np.exp(-OPPOSITE))).mean()
    assert losses["purchase|click"] - free["purchase|click"] == pytest.approx(0.001 * constraint, rel=1e-2)


def test_multi_dr():
    losses, gradients = losses_and_gradients(multi_dr(CLICK_AND_PURCHASE), DR_LOGITS, LABELS)
    robust = IMPUTED + O * (ERROR - IMPUTED) / P["click"]
    miss = O * (ERROR - IMPUTED) ** 2 / P["click"]
    expected = {"click": CTR_LOSS, "purchase": robust.mean(), "purchase_imputation": miss.mean()}
    assert losses == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(gradients["click"], own_click_gradient(), rtol=1e-4)
    # The imputation's own loss leaves pCVR alone: its gradient is that of the robust loss.
    expected = O * (P["purchase"] - LABELS["purchase"]) / P["click"] / 4
    np.testing.assert_allclose(gradients["purchase"], expected, rtol=1e-4)
    slope = 1 / (1 + np.exp(-IMPUTATION))
    expected = ((1 - O / P["click"]) + 2 * O * (IMPUTED - ERROR) / P["click"]) * slope / 4
    np.testing.assert_allclose(gradients["purchase_imputation"], expected, rtol=1e-4)


def test_towers_that_exist_in_training_only_are_not_served():
    for head, extra in ((multi_dr, "purchase_imputation"), (dcmt, "purchase_counterfactual")):
        towers = head(CLICK_AND_PURCHASE).towers()
        assert {name for name, tower in towers.items() if not tower.is_served} == {extra}
    assert len(escm2(CLICK_AND_PURCHASE).towers()) == 2
    assert "purchase_imputation" in escm2(CLICK_AND_PURCHASE, regularizer="dr").towers()


@pytest.mark.parametrize("regularizer", ["ipw", "dr"])
def test_escm2(regularizer):
    head = escm2(CLICK_AND_PURCHASE, regularizer=regularizer, counterfactual_weight=0.5, global_weight=3.0)
    losses, _ = losses_and_gradients(head, DR_LOGITS, LABELS)
    risk = (O * ERROR / P["click"]).mean()
    if regularizer == "dr":
        miss = O * (ERROR - IMPUTED) ** 2 / P["click"]
        risk = (IMPUTED + O * (ERROR - IMPUTED) / P["click"]).mean() + miss.mean()
    entire = cross_entropy(P["click"] * P["purchase"], LABELS["purchase"]).mean()
    assert losses == pytest.approx({"click": CTR_LOSS, "purchase|click": 0.5 * risk, "purchase": 3 * entire}, rel=1e-5)


def test_escm2_weighs_the_clicked_rows_by_a_propensity_without_gradient():
    with_risk, without = (
        losses_and_gradients(escm2(CLICK_AND_PURCHASE, counterfactual_weight=w), LOGITS, LABELS)[1] for w in (1.0, 0.0)
    )
    np.testing.assert_allclose(with_risk["click"], without["click"], rtol=1e-5)
    assert not np.allclose(with_risk["purchase"], without["purchase"])


def test_dcmt():
    losses, gradients = losses_and_gradients(dcmt(CLICK_AND_PURCHASE, constraint_weight=0.2), DCMT_LOGITS, LABELS)
    opposite = 1 / (1 + np.exp(-OPPOSITE))
    factual = O * ERROR / P["click"]
    counterfactual = (1 - O) * cross_entropy(opposite, 1.0) / (1 - P["click"])
    constraint = np.abs(1 - P["purchase"] - opposite)
    entire = cross_entropy(P["click"] * P["purchase"], LABELS["purchase"]).mean()
    conversion = (factual + counterfactual + 0.2 * constraint).mean()
    assert losses == pytest.approx({"click": CTR_LOSS, "purchase|click": conversion, "purchase": entire}, rel=1e-5)
    # Only the loss of the product reaches the click's tower beside its own.
    product = P["click"] * P["purchase"]
    through_product = (product - LABELS["purchase"]) * (1 - P["click"]) / (1 - product) / 4
    np.testing.assert_allclose(gradients["click"], own_click_gradient() + through_product, rtol=1e-4)


def test_the_soft_constraint_ties_rows_without_a_click_to_the_conversion():
    _, gradients = losses_and_gradients(dcmt(CLICK_AND_PURCHASE, constraint_weight=1.0), DCMT_LOGITS, LABELS)
    _, free = losses_and_gradients(dcmt(CLICK_AND_PURCHASE, constraint_weight=0.0), DCMT_LOGITS, LABELS)
    changed = gradients["purchase"] != free["purchase"]
    assert changed[O == 0].all()


def test_inverse_propensities_make_the_clicked_rows_stand_for_all():
    """The effect: on confounded data the weighted loss estimates the loss over all rows, the naive one does not."""
    rng = np.random.default_rng(0)
    taste = rng.normal(size=200_000)  # makes both click and conversion likely
    p, q = 1 / (1 + np.exp(1 - 1.5 * taste)), 1 / (1 + np.exp(1 - 2 * taste))
    click = rng.random(len(p)) < p
    convert = rng.random(len(p)) < q
    logits = {"click": np.log(p / (1 - p)), "purchase": np.zeros(len(p))}  # right propensities, no idea of conversion
    labels = {"click": click, "purchase": click & convert}
    _, gradients = losses_and_gradients(multi_ipw(CLICK_AND_PURCHASE, clip=1e-3), logits, labels)
    # The mean gradient by a logit of 0 is 1/2 minus the conversion rate that the loss believes in.
    weight = (click / p).mean()  # close to 1
    believed = 0.5 - gradients["purchase"].sum() / weight
    assert believed == pytest.approx(convert.mean(), abs=0.02)
    assert (click & convert).sum() / click.sum() > convert.mean() + 0.15  # what the clicked rows alone say


@pytest.mark.parametrize("head", [multi_ipw, multi_dr, escm2, dcmt])
@pytest.mark.parametrize("clip", [0.0, 1.5])
def test_the_smallest_propensity_is_checked(head, clip):
    with pytest.raises(ValueError, match=rf"`clip` must be in \(0, 1\].*clip={clip}"):
        head(CLICK_AND_PURCHASE, clip=clip)


def test_other_options_are_checked():
    with pytest.raises(ValueError, match="`regularizer` must be one of"):
        escm2(CLICK_AND_PURCHASE, regularizer="ips")
    with pytest.raises(ValueError, match="`counterfactual_weight` must not be negative"):
        escm2(CLICK_AND_PURCHASE, counterfactual_weight=-1.0)
    with pytest.raises(ValueError, match="`constraint_weight` must not be negative"):
        dcmt(CLICK_AND_PURCHASE, constraint_weight=-1.0)


@pytest.mark.parametrize("head", [multi_ipw, multi_dr, escm2, dcmt])
def test_rows_with_an_unknown_conversion_are_left_out(head):
    logits = {**DR_LOGITS, **DCMT_LOGITS}
    logits = {name: logits[name] for name in head(CLICK_AND_PURCHASE).towers()}
    masked, _ = losses_and_gradients(head(CLICK_AND_PURCHASE), logits, {**LABELS, "purchase": [nan, 0.0, 0.0, 0.0]})
    fewer = {name: np.asarray(values)[1:] for name, values in logits.items()}
    short, _ = losses_and_gradients(head(CLICK_AND_PURCHASE), fewer, {k: v[1:] for k, v in LABELS.items()})
    assert {k: v for k, v in masked.items() if k != "click"} == pytest.approx(
        {k: v for k, v in short.items() if k != "click"}, rel=1e-5
    )
