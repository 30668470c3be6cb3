"""Says that a model is below the best baseline, and what in the data may be the cause."""

import math
from collections.abc import Mapping
from typing import Any

from tfmtr.datasets.dataset import Dataset
from tfmtr.evaluation.evidence import LEAST_USERS, interval_text
from tfmtr.evaluation.list_scores import MODEL

FEW_UPDATES = 1_000
FEW_NEGATIVES = 4.0
LARGE_SHARE = 0.3


def shortcomings(found: Mapping[str, Any], run: Mapping[str, Any], data: Dataset) -> list[str]:
    """Warnings about an evaluation.

    Args:
        found: The document of `evaluate` so far, with `"baselines"` and `"segments"`.
        run: The document `run.json`.
        data: The `Dataset` directory.

    Returns:
        List of text: one if the mean NDCG of the model's lists is below that of the baseline that validation users
        decided for.
    """
    baselines = found["baselines"]
    if baselines is None or baselines["best"] not in baselines["compared"]:
        return []
    best, cell = baselines["best"], baselines["compared"][baselines["best"]]
    if cell["ours"] >= cell["theirs"] or cell["users"] < LEAST_USERS:
        return []
    text = f"the model's lists are below those of {best}, the best baseline: NDCG {cell['ours']:.4f}, {best} "
    text += f"{cell['theirs']:.4f}"
    if cell["ratio"] is not None:
        text += f"; the ratio is {cell['ratio']:.2f} ({interval_text(cell, 2)})"
    reasons = causes(found, run, data)
    return [f"{text}. {'It may be that ' + '; '.join(reasons) if reasons else 'The data show no cause'}"]


def causes(found: Mapping[str, Any], run: Mapping[str, Any], data: Dataset) -> list[str]:
    """What the data and the run show that keeps a model's lists back: list of text."""
    report, texts = data.report, []
    titles = report.get("statistics", {}).get("titles")
    without = report.get("titles_without_text") or 0
    if titles and without / titles >= LARGE_SHARE:
        texts.append(f"{without / titles:.0%} of the titles have no text and no vector")
    segments = found["segments"].get(MODEL, {})
    new, known = (segments.get(f"{kind} users", {}).get("user_windows", 0) for kind in ("new", "known"))
    if new + known and new / (new + known) >= LARGE_SHARE:
        texts.append(f"{new / (new + known):.0%} of the test users had nothing before the window")
    if not any(feature.name == "user_vector" for feature in data.schema.features):
        texts.append("users have no vector, neither of their own nor of what they had")
    parts = [row for row in report.get("examples", ()) if row["split"] == "train" and row["window"] <= 0]
    if not run["recipe"].get("upsample", True):
        parts = [row for row in parts if row["sampling"] == "random"]
    rows, positives = (sum(row[name] for row in parts) for name in ("rows", "positives"))
    first = next(iter(run.get("stages", {}).values()), {"history": []})
    updates = math.ceil(rows / run["recipe"]["batch_size"]) * len(first["history"])
    if 0 < updates < FEW_UPDATES:
        texts.append(f"the model had {updates} updates only: give it smaller batches or more epochs")
    if positives and (rows - positives) / positives < FEW_NEGATIVES:
        texts.append(f"there are {(rows - positives) / positives:.1f} negatives for each positive only")
    return texts
