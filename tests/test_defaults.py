"""What parts do whose options a recipe leaves out: stored recipes mean it, so no default changes without a word."""

import inspect

import pytest

from tfmtr import components
from tfmtr.recipe import FORMER_DEFAULTS, PARTS

SIZES = {"units": (256, 256), "tower_units": (64,)}
CLIP = {"clip": 0.02}
# Folder -> part -> defaults, as they are since runs of format 3.
DEFAULTS = {
    "sharing": {
        "adatt": {**SIZES, "num_experts": 2, "num_shared_experts": 1, "normalize": False},
        "cross_stitch": {"units": (512, 256, 64), "same_tower": 0.9, "normalize": False},
        "hinet": {**SIZES, "num_experts": 2},
        "m2m": {"units": 64, "knowledge_units": 8, "num_experts": 4, "num_layers": 1, "num_levels": 2},
        "m3oe": {
            **SIZES, "units": (512, 256), "expert_units": 64, "num_experts": 4, "fusion": "weighted",
            "domain_module": True, "task_module": True, "learn_fusion": True,
        },
        "mmoe": {**SIZES, "units": (256,), "num_experts": 4, "normalize": False},
        "pepnet": {"units": (256, 64), "gate_units": 64, "gamma": 2.0},
        "ple": {**SIZES, "num_experts": 1, "num_shared_experts": 1, "normalize": False},
        "shared_bottom": {**SIZES, "units": (512, 256), "normalize": False},
        "shrunken_branches": {"rank": 32, "prior_rows": 1000.0},
        "snr": {**SIZES, "num_experts": 4, "variant": "trans", "penalty": 1e-4, "normalize": False},
        "star": {"units": (512, 256, 64), "auxiliary_units": (64,), "momentum": 0.9},
        "stem": {**SIZES, "units": (256,), "num_experts": 1, "num_shared_experts": 1},
        "territory_branches": {"units": None, "activation": None},
    },
    "heads": {
        "aitm": {"calibrator_weight": 0.6},
        "cross_distil": {
            "pair": None, "rank_weights": (1.0, 1.0, 1.0), "distil_weight": 0.5, "margin": 0.0, "temperature": 1.0,
        },
        "dbmtl": {"parents": None},
        "dcmt": {**CLIP, "constraint_weight": 0.001},
        "escm2": {**CLIP, "regularizer": "ipw", "counterfactual_weight": 0.1, "global_weight": 1.0},
        "esdf": {"elapsed": "elapsed", "num_slots": 4, "slot": 1.0},
        "in_batch_softmax": {
            "title": "title", "frequency": "streaming", "negatives": "mixed", "num_hard_negatives": None,
            "within": None, "temperature": 1.0, "power": 1.0,
        },
        "mt_fwfm": {"conversion_type": None},
        "multi_dr": CLIP,
        "multi_ipw": CLIP,
        "parallel": {"normalizer": "rows", "num_groups": None},
        "position_bias": {
            "head": "parallel", "features": ("position",), "biased": None, "drop_rate": 0.1, "units": (16,),
        },
        "self_auxiliary": {"head": "parallel", "auxiliary_weight": 0.5, "units": ()},
    },
    "balancing": {
        "adatask": {"method": "adam", "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7},
        "aligned_mtl": {"scale": "min"},
        "bilevel": {"every": 10, "batch": "next"},
        "cagrad": {"c": 0.4},
        "dynamic_weight_average": {"temperature": 2.0, "period": 100},
        "fair_grad": {"alpha": 2.0, "max_norm": 1.0, "weighs_own": False},
        "grad_drop": {"leak": 0.0, "seed": 0},
        "grad_norm": {"alpha": 1.5, "learning_rate": 0.025},
        "grad_vac": {"rate": 0.01, "seed": 0},
        "imtl": {"learning_rate": 0.01},
        "metabalance": {"main": None, "relax": 0.7, "beta": 0.9, "strategy": "both"},
        "mgda": {"normalize": "none"},
        "mta_f": {"weight": 1.0, "group": "scenario"},
        "nash_mtl": {"max_norm": 1.0},
        "pcgrad": {"seed": 0},
        "random_weighting": {"seed": 0},
        "stch": {"mu": 1.0, "warmup": 100},
    },
    "debiasing": {
        "dice": {
            "served": "interest", "interest_weight": 0.1, "conformity_weight": 0.1, "discrepancy_weight": 0.01,
            "num_negatives": 4,
        },
        "ips": {"power": 0.5, "clip": 20.0, "is_normalized": True},
        "macr": {"c": 1.0, "title_weight": 1e-3, "user_weight": 1e-3},
        "pda": {"power": 0.1, "num_negatives": 4},
        "popular_negatives": {"power": 0.75},
        "score_correlation": {"weight": 1.0},
    },
    "encoders.interactions": {"cross": {"num_layers": 2, "projection_dim": None}},
}  # fmt: skip
MESSAGE = (
    "A run stores the options that were given, and means these defaults for the others: a new default needs a new "
    "format of runs and searches in `tfmtr/folders.py`, and the old one in `tfmtr/recipe/former.py`"
)


def options_of(folder, name):
    parameters, _ = components._options_of(folder, name)
    return {key: p.default for key, p in parameters.items() if p.default is not inspect.Parameter.empty}


@pytest.mark.parametrize(("folder", "name"), [(folder, name) for folder, parts in DEFAULTS.items() for name in parts])
def test_a_recipe_means_what_it_meant(folder, name):
    found = options_of(folder, name)
    assert {key: found.get(key, "no such option") for key in DEFAULTS[folder][name]} == DEFAULTS[folder][name], MESSAGE


@pytest.mark.parametrize("folder", DEFAULTS)
def test_every_part_with_options_is_in_the_table(folder):
    assert {name for name in components.names(folder) if options_of(folder, name)} == set(DEFAULTS[folder])


def test_former_defaults_are_options_that_are_others_now():
    for field, parts in FORMER_DEFAULTS.items():
        for name, options in parts.items():
            now = options_of(PARTS[field], name)
            assert all(now[key] != value for key, value in options.items())
