import shutil

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from tfmtr.datasets.dataset import Dataset
from tfmtr.evaluation.index_lists import IndexLists, list_metrics, profiles
from tfmtr.evaluation.lists import Lists
from tfmtr.evaluation.past import Past
from tfmtr.evaluation.title_facts import TitleFacts, title_facts


def test_a_profile_is_what_was_chosen_before_the_window(tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / "data")
    data = Dataset(tmp_path / "data")
    positives = {}
    for window in data.test_windows:
        (file,) = data.examples("test", windows=[window])
        rows = pq.ParquetFile(file).read().to_pandas()
        positives[window] = set(rows[(rows.event > 0) & (rows.user == "u170")].title)
    before = next(t for t in (f"t{i}" for i in range(50)) if not any(t in of for of in positives.values()))
    add = {"user": ["u170", "u170", "u171"], "title": [before, "t3", "t3"], "window": -1, "split": "test"}
    add = pd.DataFrame({**add, "is_history": [True, False, True]})  # u170 only rated t3, as bad
    kept = pd.read_parquet(data.path / "events.parquet")
    pd.concat([kept, add]).to_parquet(data.path / "events.parquet")
    facts, past = title_facts(data), Past(data)

    def profile(window):
        users, titles = profiles(past, np.array(["u170", "u160"]), window)
        assert set(users) <= {0, 1}  # u171 is not asked for
        return set(facts.ids[titles[users == 0]])

    assert profile(1) == {before}
    assert profile(2) == {before} | positives[1]
    assert profile(3) == {before} | positives[1] | positives[2]
    assert profile(2) != profile(1)


def test_every_metric_of_the_lists_is_there_and_reads_the_facts():
    users = np.arange(40)
    lists = Lists(np.tile([0, 1], (40, 1)), ["DE"] * 40, users, users % 4 == 0, num_titles=4)
    available = {"DE": np.array([True, True, True, False])}
    facts = TitleFacts(
        ids=np.array(["a", "b", "c", "d"]),
        popularity=np.array([6, 2, 2, 0]),
        rate=np.array([0.5, 0.5, 0.1, np.nan]),
        local=np.array([False, True, True, False]),
        territories={},
    )
    profile = users, np.full(40, 1)
    metrics = list_metrics(IndexLists(lists, users.astype(str), available), facts, profile)
    cells = {name: of["DE"] for name, of in metrics.items()}
    assert cells["ranking"]["recall"] == cells["ranking"]["hit_rate"] == 1.0
    assert cells["exposure"]["coverage"] == pytest.approx(2 / 3)  # of the catalogue, which lacks one title
    assert cells["exposure"]["average_popularity"] == 4.0
    assert cells["popularity_lift"]["popularity_lift"] == 1.0  # 4 instead of 2
    assert (cells["local_share"]["recommended"], cells["local_share"]["truth"]) == (0.5, 0.25)
    assert cells["exposure_curve"]["popularity"][-1] == 0.0  # the most popular title shares no decile above its own
    assert len(cells["hit_rate_by_popularity"]) == 10
    assert cells["equal_opportunity"]["global"] == 1.0  # title 0 is as good as title 1, by the rate of positives
    assert cells["equal_opportunity"]["reason"] == "local titles: 10 positives, 30 needed"
    facts.rate[:2] = 0.1, 0.9  # no local title is as good as title 0
    cell = list_metrics(IndexLists(lists, users.astype(str), available), facts, profile)["equal_opportunity"]["DE"]
    assert cell["global_positives"] == 0
