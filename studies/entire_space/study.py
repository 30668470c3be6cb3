"""Does debiasing work? Every head for click and purchase against the truth of simulated impressions.

    python studies/entire_space/study.py --seeds 5
    python studies/entire_space/study.py --seeds 5 --hidden 0.5
    python studies/entire_space/study.py --seeds 5 --delay 2
    python studies/entire_space/study.py --seeds 5 --position 2
    python studies/entire_space/study.py --report

The simulator (`tfmtr/datasets/impressions.py`) knows for every impression whether it would be bought if it were
clicked. Clicked impressions convert far more often than the others would; a head that learns from them alone may be
wrong about all others. One cell is one head with one seed, which decides rows, weights and order alike; users and
titles are the same for all. Cells are lines of `results.jsonl`, written as they are finished and not computed again.

Every head has the same model (ranking, shared bottom with layer normalisation), optimiser and budget, nothing tuned:
Adam 3e-3, batches of 1,024, at most 6 epochs, the epoch chosen by what a log can show, the log loss of pCTCVR on
validation rows (patience 1). Heads without an output `purchase|click` give p(purchase) / p(click) for it.

Reported over all test impressions: AUC and log loss of pCVR against the purchases that every impression would have had,
its expected calibration error, mean pCVR over the true mean, and AUC of pCTCVR against the log; where purchases come
late, mean pCTCVR over that of all purchases in the end; where clicks depend on
the position, the correlation of log pCTR with its true value in the middle of the page, and the log loss there. p:
Welch of the log loss against naive CVR over seeds, Holm over the heads.

Expected: see `studies/entire_space/README.md`.
"""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

import numpy as np
from sklearn.metrics import log_loss, roc_auc_score

from studies import heads
from studies.cells import RESULTS, normalized, read_cells
from tfmtr import components
from tfmtr.datasets.impressions import impressions
from tfmtr.evaluation.metrics import expected_calibration_error

TASKS = {"esm2": ("click", "cart", "purchase"), "hm3": ("click", "view", "cart", "purchase")}
RECIPE = {"rows": 100_000, "batch_size": 1024, "learning_rate": 3e-3, "max_epochs": 6, "patience": 1}
OPTIONS = {"position_bias": {"head": "esmm"}, "esdf": {"num_slots": 7}}
ELSEWHERE = {
    "esdf": "ESMM where no purchase is late; see the delayed log",
    "position_bias": "the head that it corrects where there are no positions; see the log with positions",
    "mt_fwfm": "parallel where every row has labels of all types",
    "in_batch_softmax": "for two-tower models, and its scores are no probabilities",
}
DELAY_HEADS = ["naive_cvr", "esmm", "esdf"]
POSITION_HEADS = ["naive_cvr", "parallel", "esmm", "position_bias"]
METRICS = {
    "auc": "AUC of pCVR",
    "log_loss": "log loss of pCVR",
    "calibration": "calibration error",
    "bias": "mean pCVR / truth",
    "ctcvr_auc": "AUC of pCTCVR",
}
TITLES = {
    "hidden": lambda share: f"{share:.0%} of the confounding intent hidden",
    "delay": lambda days: f"Purchases come {days:g} days later on average, logs are read after 0 to 7",
    "position": lambda factor: f"Titles of high appeal stand further up, with factor {factor:g}",
}
DELAY_METRICS = {"ctcvr_bias": "mean pCTCVR / truth"}
POSITION_METRICS = {
    "click_correlation": "correlation of log pCTR with the truth",
    "click_log_loss": "log loss of pCTR",
    "auc": "AUC of pCVR",
    "log_loss": "log loss of pCVR",
    "ctcvr_auc": "AUC of pCTCVR",
}


def evaluate(model, data):
    """The metrics of a model against the truth."""
    p = heads.predict(model, data.x, "purchase", "click")
    cvr, click = p["purchase|click"], np.clip(p["click"], 1e-7, 1 - 1e-7)
    truth = data.probability
    cross_entropy = -(truth["click"] * np.log(click) + (1 - truth["click"]) * np.log1p(-click))
    return {
        "auc": float(roc_auc_score(data.would_purchase, cvr)),
        "log_loss": float(log_loss(data.would_purchase, np.clip(cvr, 1e-7, 1 - 1e-7))),
        "calibration": expected_calibration_error(truth["purchase|click"], cvr),
        "bias": float(cvr.mean() / truth["purchase|click"].mean()),
        "ctcvr_auc": float(roc_auc_score(data.y["purchase"], p["purchase"])),
        "ctcvr_bias": float(p["purchase"].mean() / truth["purchase"].mean()),
        "click_correlation": float(np.corrcoef(np.log(truth["click"]), np.log(click))[0, 1]),
        "click_log_loss": float(cross_entropy.mean()),
    }


def run(head, seed, recipe):
    """Trains and evaluates one head with one seed."""
    world = {name: recipe[name] for name in ("confounding", "hidden")}
    log = {name: recipe[name] for name in ("position", "delay") if name in recipe}
    train = impressions(recipe["rows"], seed=3 * seed, **world, **log)
    # Validation rows have waited long enough; the test is against the truth.
    validation = impressions(recipe["rows"] // 2, seed=3 * seed + 1, **world)
    test = impressions(recipe["rows"], seed=3 * seed + 2, **world)
    wanted = TASKS.get(head, ("click", "purchase"))
    schema = train.schema.replace(tasks=[task for task in train.schema.tasks if task.name in wanted])
    parts = {"share": normalized(("shared_bottom", {"units": (64,), "tower_units": (32,)})), "embedding_dim": 8}

    def loss(model):
        p = heads.predict(model, validation.x, "purchase", "click")
        return log_loss(validation.y["purchase"], p["purchase"])

    labels = {name: train.y[name] for name in wanted}
    parts["head"] = (head, OPTIONS.get(head, {}))
    model, history = heads.fit(parts, schema, train.x, labels, recipe, loss, seed=seed)
    return {"val_ctcvr": history, "test": evaluate(model, test)}


def main(*, names=None, seeds=5, confounding=1.0, hidden=0.0, position=0.0, delay=0.0, folder=HERE, **changes):
    """Computes the missing cells and returns all that were asked for."""
    recipe = {**RECIPE, "confounding": confounding, "hidden": hidden, **changes}
    name, chosen = f"hidden-{hidden:g}", [head for head in components.names("heads") if head not in ELSEWHERE]
    if position:
        recipe["position"], name, chosen = position, f"position-{position:g}", POSITION_HEADS
    if delay:
        recipe["delay"], name, chosen = delay, f"delay-{delay:g}", DELAY_HEADS
    return heads.compute(run, names or chosen, seeds=seeds, recipe=recipe, folder=folder, prefix=f"{name}/")


def write_report(folder=HERE):
    """Prints and writes the page of all cells that there are."""
    parts = ["# Heads against the truth of simulated impressions\n", "`studies/entire_space/study.py` says how.\n"]
    cells = read_cells(folder / RESULTS)
    for name in sorted({name.partition("/")[0] for name in cells}):
        kind, _, value = name.partition("-")
        parts.append(f"## {TITLES[kind](float(value))}\n")
        metrics = {"position": POSITION_METRICS, "delay": {**METRICS, **DELAY_METRICS}}.get(kind, METRICS)
        parts.append(heads.table([cell for key, cell in cells.items() if key.startswith(f"{name}/")], metrics))
    parts.append("Not in the first tables:\n\n" + "".join(f"* {head}: {why}.\n" for head, why in ELSEWHERE.items()))
    heads.write_page(parts, folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--heads", default=None, help="some of the heads; all by default")
    parser.add_argument("--confounding", type=float, default=1.0, help="factor of the intent in every logit")
    parser.add_argument("--hidden", type=float, default=0.0, help="share of the intent that no feature shows")
    parser.add_argument("--position", type=float, default=0.0, help="factor of the place on the page in the clicks")
    parser.add_argument("--delay", type=float, default=0.0, help="mean days from the impression to the purchase")
    parser.add_argument("--report", action="store_true", help="only the page, from the cells that are there")
    arguments = parser.parse_args()
    if not arguments.report:
        main(
            names=arguments.heads and arguments.heads.split(","),
            seeds=arguments.seeds,
            confounding=arguments.confounding,
            hidden=arguments.hidden,
            position=arguments.position,
            delay=arguments.delay,
        )
    write_report()
