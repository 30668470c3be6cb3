"""Click, then long view: the heads for cascades on KuaiRand, by what its log can show.

    python studies/kuairand_funnel/study.py --data path/to/KuaiRand-Pure/data --seeds 3
    python studies/kuairand_funnel/study.py --report

Three tasks over the standard log, split 8:1:1 by time: click, long view after click, and like beside them. A few long
views have no click; heads for cascades train them as 0, the test sees the label as it is. One cell is one head with
one seed, a line of `results.jsonl` that is written as soon as it is finished, and not computed again. Heads that need
labels or features which the log lacks are left out: levels between the click and the goal (ESM2, HM3), a position, the
time until a long view (ESDF), types of conversion (MT-FwFM); so is the in-batch softmax, which ranks no rows.

Every head has the same model (ranking, shared bottom with layer normalisation), optimiser and budget, nothing tuned:
embeddings of 16, Adam 3e-3, batches of 4,096, at most 8 epochs, the epoch chosen by the log loss of long view on
validation rows (patience 2). Test rows are read once a cell.

Reported on test rows: AUC of click and of like, AUC, log loss and calibration error of long view over all impressions
(pCTCVR), and AUC of pCVR among clicked rows, which is all that a log shows of pCVR. p: Welch of the log loss against
naive CVR over seeds, Holm over the heads.

Rows go through `tfmtr.prepare_rows` (`studies/given_rows.py`) and are trained on with `tfmtr.fit`.

Expected: see `studies/kuairand_funnel/README.md`.
"""

import argparse
import functools
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from sklearn.metrics import log_loss, roc_auc_score

from studies import heads
from studies.cells import RESULTS, normalized, read_cells
from studies.given_rows import encoded
from tfmtr import components, models
from tfmtr.datasets.kuairand_domains import LIKE, TASKS, kuairand
from tfmtr.evaluation.metrics import expected_calibration_error

RECIPE = {"batch_size": 4096, "learning_rate": 3e-3, "max_epochs": 8, "patience": 2}
OPTIONS = {"cross_distil": {"pair": ("click", "long_view")}}
METRICS = {
    "click_auc": "AUC of click",
    "auc": "AUC of long view",
    "log_loss": "log loss of long view",
    "calibration": "calibration error",
    "clicked_auc": "AUC of pCVR, clicked rows",
    "like_auc": "AUC of like",
}


def read(path):
    """Schema with what follows what, and `{split: (x, y)}`."""
    tasks = {**TASKS, "long_view": f"{TASKS['long_view']}:after=click", **LIKE}
    return encoded(kuairand, path, protocol="time", tasks=tasks)


def heads_for(schema):
    """The heads for which the log has the tasks and the features, but MT-FwFM: every row has labels of all types."""
    names = []
    for name in components.names("heads"):
        try:
            models.ranking(schema, head=functools.partial(components.find("heads", name), **OPTIONS.get(name, {})))
        except ValueError:
            continue
        names.append(name)
    return [name for name in names if name != "mt_fwfm"]


def evaluate(model, x, y):
    """The metrics of a model on test rows."""
    p = heads.predict(model, x, "long_view", "click")
    click, long_view, like = (y[column] for column in (*TASKS, *LIKE))
    clicked = click == 1
    return {
        "click_auc": float(roc_auc_score(click, p["click"])),
        "auc": float(roc_auc_score(long_view, p["long_view"])),
        "log_loss": float(log_loss(long_view, p["long_view"])),
        "calibration": expected_calibration_error(long_view, p["long_view"]),
        "clicked_auc": float(roc_auc_score(long_view[clicked], p["long_view|click"][clicked])),
        "like_auc": float(roc_auc_score(like, p["like"])),
    }


def run(schema, parts, head, seed, recipe):
    """Trains and evaluates one head with one seed."""
    x, y = parts["validation"]

    def loss(model):
        return log_loss(y["long_view"], heads.predict(model, x, "long_view", "click")["long_view"])

    what = {"share": normalized(("shared_bottom", {"units": (256,)})), "head": (head, OPTIONS.get(head, {}))}
    model, history = heads.fit(what, schema, *parts["train"], recipe, loss, seed=seed)
    return {"val_long_view": history, "test": evaluate(model, *parts["test"])}


def main(path, *, names=None, seeds=3, folder=HERE, **changes):
    """Computes the missing cells and returns all that were asked for."""
    schema, parts = read(path)
    return heads.compute(
        functools.partial(run, schema, parts),
        names or heads_for(schema),
        seeds=seeds,
        recipe={**RECIPE, **changes},
        folder=folder,
    )


def write_report(folder=HERE):
    """Prints and writes the page of all cells that there are."""
    parts = ["# Click, then long view: heads on KuaiRand\n", "`studies/kuairand_funnel/study.py` says how.\n"]
    heads.write_page([*parts, heads.table(list(read_cells(folder / RESULTS).values()), METRICS)], folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of KuaiRand-Pure's tables")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--heads", default=None, help="some of the heads; all that take these tasks by default")
    parser.add_argument("--report", action="store_true", help="only the page, from the cells that are there")
    arguments = parser.parse_args()
    if not arguments.report:
        if arguments.data is None:
            parser.error("--data is needed, except with --report")
        main(arguments.data, names=arguments.heads and arguments.heads.split(","), seeds=arguments.seeds)
    write_report()
