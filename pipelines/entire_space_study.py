"""Does debiasing work? Every head for click and purchase against the truth of simulated impressions.

    python pipelines/entire_space_study.py --seeds 5
    python pipelines/entire_space_study.py --seeds 5 --hidden 0.5
    python pipelines/entire_space_study.py --report

The simulator (`tfmtr/datasets/impressions.py`) knows for every impression whether it would be bought if it were
clicked. Clicked impressions convert far more often than the others would; a head that learns from them alone may be
wrong about all others. One cell is one head with one seed, which decides rows, weights and order alike; users and
titles are the same for all. Cells are written to `docs/results/entire_space/` as they are finished and not computed
again.

Every head has the same model (ranking, shared bottom), optimiser and budget, nothing tuned: Adam 3e-3, batches of
1,024, at most 6 epochs, the epoch chosen by what a log can show, the log loss of pCTCVR on validation rows (patience
1). Heads without an output `purchase|click` give p(purchase) / p(click) for it.

Reported over all test impressions: AUC and log loss of pCVR against the purchases that every impression would have had,
its expected calibration error, mean pCVR over the true mean, and AUC of pCTCVR against the log. p: Welch of the log
loss against naive CVR over seeds, Holm over the heads.

Expected: see `docs/results/entire_space/README.md`.
"""

import argparse
import functools
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import head_study
import keras
import numpy as np
from sklearn.metrics import log_loss, roc_auc_score

from tfmtr import components, models
from tfmtr.datasets.impressions import impressions
from tfmtr.evaluation.metrics import expected_calibration_error
from tfmtr.sharing.shared_bottom import shared_bottom

RESULTS = Path("docs/results/entire_space")
TASKS = {"esm2": ("click", "cart", "purchase"), "hm3": ("click", "view", "cart", "purchase")}
RECIPE = {"rows": 100_000, "batch_size": 1024, "learning_rate": 3e-3, "max_epochs": 6, "patience": 1}
METRICS = {
    "auc": "AUC of pCVR",
    "log_loss": "log loss of pCVR",
    "calibration": "calibration error",
    "bias": "mean pCVR / truth",
    "ctcvr_auc": "AUC of pCTCVR",
}


class ValidationLoss(keras.callbacks.Callback):
    """Adds to an epoch's figures `val_ctcvr`, the log loss of the purchases that the log shows."""

    def __init__(self, data):
        super().__init__()
        self.data = data

    def on_epoch_end(self, epoch, logs=None):
        """Evaluates."""
        _, ctcvr = predict(self.model, self.data.x)
        logs["val_ctcvr"] = float(log_loss(self.data.y["purchase"], ctcvr))


def predict(model, x):
    """PCVR and pCTCVR of every row."""
    outputs = {name: value[:, 0].astype(float) for name, value in model.predict(x, batch_size=8192, verbose=0).items()}
    ratio = outputs["purchase"] / np.maximum(outputs["click"], 1e-7)
    return np.clip(outputs.get("purchase|click", ratio), 0.0, 1.0), outputs["purchase"]


def evaluate(model, data):
    """The metrics of a model against the truth."""
    cvr, ctcvr = predict(model, data.x)
    clipped = np.clip(cvr, 1e-7, 1 - 1e-7)
    return {
        "auc": float(roc_auc_score(data.would_purchase, cvr)),
        "log_loss": float(log_loss(data.would_purchase, clipped)),
        "calibration": expected_calibration_error(data.probability["purchase|click"], cvr),
        "bias": float(cvr.mean() / data.probability["purchase|click"].mean()),
        "ctcvr_auc": float(roc_auc_score(data.y["purchase"], ctcvr)),
    }


def run(head, seed, recipe):
    """Trains and evaluates one head with one seed."""
    sizes = {"confounding": recipe["confounding"], "hidden": recipe["hidden"]}
    train, validation, test = (
        impressions(rows, seed=3 * seed + part, **sizes)
        for part, rows in enumerate((recipe["rows"], recipe["rows"] // 2, recipe["rows"]))
    )
    wanted = TASKS.get(head, ("click", "purchase"))
    schema = train.schema.replace(tasks=[task for task in train.schema.tasks if task.name in wanted])
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    share = functools.partial(shared_bottom, units=(64,), tower_units=(32,))
    model = models.ranking(schema, share=share, head=head, embedding_dim=8)
    model.compile(keras.optimizers.Adam(recipe["learning_rate"]))
    stop = keras.callbacks.EarlyStopping(
        "val_ctcvr", mode="min", patience=recipe["patience"], restore_best_weights=True
    )
    history = model.fit(
        train.x,
        {name: train.y[name] for name in wanted},
        batch_size=recipe["batch_size"],
        epochs=recipe["max_epochs"],
        verbose=0,
        callbacks=[ValidationLoss(validation), stop],
    ).history
    return {"val_ctcvr": history["val_ctcvr"], "test": evaluate(model, test)}


def main(*, heads=None, seeds=5, confounding=1.0, hidden=0.0, results=RESULTS, **changes):
    """Computes the missing cells and returns all that were asked for."""
    recipe = {**RECIPE, "confounding": confounding, "hidden": hidden, **changes}
    folder = results / f"hidden-{hidden:g}"
    return head_study.compute(run, heads or components.names("heads"), seeds=seeds, recipe=recipe, folder=folder)


def write_report(results=RESULTS):
    """Prints and writes the page of all cells that there are."""
    parts = ["# Heads against the truth of simulated impressions\n", "`pipelines/entire_space_study.py` says how.\n"]
    for folder in sorted(results.glob("hidden-*")):
        share = float(folder.name.removeprefix("hidden-"))
        parts.append(f"## {share:.0%} of the confounding intent hidden\n")
        parts.append(head_study.table(head_study.read_cells(folder), METRICS))
    head_study.write_page(parts, results)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--heads", default=None, help="some of the heads; all by default")
    parser.add_argument("--confounding", type=float, default=1.0, help="factor of the intent in every logit")
    parser.add_argument("--hidden", type=float, default=0.0, help="share of the intent that no feature shows")
    parser.add_argument("--report", action="store_true", help="only the page, from the cells that are there")
    arguments = parser.parse_args()
    if not arguments.report:
        main(
            heads=arguments.heads and arguments.heads.split(","),
            seeds=arguments.seeds,
            confounding=arguments.confounding,
            hidden=arguments.hidden,
        )
    write_report()
