import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers import report_runs

from tfmtr.datasets.dataset import Dataset
from tfmtr.reporting.pairs import read_pairs
from tfmtr.reporting.runs import read_models


def test_scores_stand_beside_their_rows(runs, prepared):
    models, data = read_models(runs), Dataset(prepared)
    pairs = read_pairs(data, models, "event")
    expected = [report_runs.read_rows(data, window) for window in data.test_windows]
    for name, values in (("territory", pairs.territories), ("title_row", pairs.titles), ("event", pairs.labels)):
        np.testing.assert_array_equal(np.asarray(values), np.concatenate([rows[name] for rows in expected]))
    users = np.concatenate([rows["user"] for rows in expected])
    assert len(np.unique(pairs.users)) == len(np.unique(users))
    assert len({*zip(pairs.users, users, strict=True)}) == len(np.unique(users))
    scores = pq.read_table(runs[3] / "scores.parquet")
    np.testing.assert_array_equal(pairs.of(models[-1])[1], scores["event"].to_numpy())
    np.testing.assert_array_equal(pairs.windows, scores["window"].to_numpy())


def test_scores_of_other_rows_are_refused(runs, prepared, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs[0], run)
    table = pq.read_table(run / "scores.parquet")
    pq.write_table(table.slice(1), run / "scores.parquet")
    with pytest.raises(
        ValueError, match=r"must have a score for each test row of .*; evaluate .*run again\. Received: "
    ):
        read_pairs(Dataset(prepared), read_models([run]), "event")
