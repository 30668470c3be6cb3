"""What the truth of a simulated log would score: a document like a contender's, for the tables of the study."""

import time

import numpy as np
import pyarrow as pa

from tfmtr import inputs, training
from tfmtr.evaluation.evaluate import put, row_metrics
from tfmtr.evaluation.index_lists import ListCase, list_metrics, profiles
from tfmtr.evaluation.past import Past
from tfmtr.evaluation.ranking import recall_at_k
from tfmtr.evaluation.splits import split_values
from tfmtr.evaluation.title_facts import LOCAL_SHARE, title_facts
from tfmtr.retrieval.catalogue import Catalogue
from tfmtr.retrieval.index import availability


def evaluate_truth(data, truth, *, lookback, k=10, most=10_000):
    """Evaluates the true propensities as `tfmtr.evaluation.evaluate` evaluates a model.

    Test rows are scored by the probability of a discovery in their window. Lists have the titles that a user would
    most probably stream if shown them: exposure, and with it the old recommender's bias, has no part in them.

    Args:
        data: The `Dataset` directory of the log.
        truth: Its `Truth`.
        lookback: Days without a stream before a discovery.
        k: Titles of a list.
        most: Most users that have lists.

    Returns:
        `{"windows", "title_classes", "recall", "lists", "k", "local_share", "date", "versions"}`, as `evaluate`
        describes them; `windows` has the territories' cells.
    """
    (task,), facts, past, found = data.schema.tasks, title_facts(data), Past(data), {"recall": {}}

    def rank(rows, allowed):
        allowed = np.asarray(allowed)
        users, titles = np.nonzero(allowed)
        scores = np.full(allowed.shape, -1.0)
        scores[users, titles] = truth.relevance(rows["user"].take(pa.array(users)), facts.ids[titles].tolist())
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.where(np.take_along_axis(scores, best, axis=1) < 0, -1, best)

    for window in data.test_windows:
        table = pa.concat_tables(inputs.read_tables(data.examples("test", windows=[window]), rows=65_536))
        day = truth.days - len(data.test_windows) + window - 1
        columns = split_values(table, data.schema)
        columns |= inputs.labels(table, data.schema) | {"title_row": table["title_row"].to_numpy()}
        columns[f"{task.name} score"] = truth.propensity(table["user"], table["title"], day, lookback=lookback)
        users = table["user"].combine_chunks().dictionary_encode().indices.to_numpy()
        for path, cells in row_metrics(columns, users, data.schema, facts):
            put(found, (*path, str(window)), cells)
        catalogue = Catalogue(facts.ids, availability(data, facts.ids, window))
        positives = table.filter(pa.array(columns[task.column] > 0))
        lists = ListCase(positives, catalogue, most=most, past=past, window=window).index_lists(rank)
        found["recall"][str(window)] = recall_at_k(lists.lists)
        for metric, cells in list_metrics(lists, facts, profiles(past, lists.users, window)).items():
            put(found, ("lists", metric, str(window)), cells)
    for cells in found["title_classes"][task.name].values():
        for cell in cells.values():  # a negative is a sampled pair, so propensities are not the labels' rates
            cell["calibration_error"] = cell["log_loss"] = cell["normalized_entropy"] = None
    return {
        "windows": found["tasks"][task.name]["territory"],
        "title_classes": found["title_classes"][task.name],
        "recall": found["recall"],
        "lists": found["lists"],
        "k": k,
        "local_share": LOCAL_SHARE,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "versions": training.versions(),
    }
