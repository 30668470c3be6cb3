import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tfmtr.datasets.dataset import Dataset
from tfmtr.evaluation.title_facts import title_facts


def test_popularity_counts_the_random_positives_of_the_training_windows_only(tiny):
    data = Dataset(tiny)
    facts = title_facts(data)
    (file,) = data.examples("train")
    assert "sampling=random/window=0" in str(file)  # the active users' rows and the later windows are others
    rows = pq.ParquetFile(file).read().to_pandas()
    rates = rows.assign(rate=rows.event > 0).groupby("title").rate.mean().reindex(facts.ids)
    np.testing.assert_allclose(facts.rate, rates)  # NaN without rows
    rows = rows[rows.event > 0]
    assert facts.popularity.tolist() == [int((rows.title == title).sum()) for title in facts.ids]
    assert facts.territories == rows.territory.value_counts().to_dict()
    assert facts.popularity.sum() == sum(facts.territories.values()) > 0


def with_catalogue(tiny, path, rows):
    """A copy of a prepared directory with other catalogues, `(territory, title, window)` each."""
    shutil.copytree(tiny, path)
    columns = dict(zip(("territory", "title", "window"), map(list, zip(*rows, strict=True)), strict=True))
    pq.write_table(pa.table(columns), path / "availability.parquet")
    return Dataset(path)


def test_a_title_is_local_by_the_first_catalogue_that_has_it(tiny, tmp_path):
    territories = ["DE", "FR", "PL", "CZ", "XX"]
    catalogue = [("DE", "t0", 1), *((t, "t0", 2) for t in territories)]  # local when it came, later everywhere
    catalogue += [(t, "t1", 1) for t in territories] + [("DE", "t1", 2)]  # global when it came
    catalogue += [("FR", "t2", 1), ("PL", "t2", 1)]
    catalogue += [("DE", "t3", 3)]  # came later
    data = with_catalogue(tiny, tmp_path / "data", catalogue)
    for share, local in ((0.2, {"t0", "t3"}), (0.39, {"t0", "t3"}), (0.4, {"t0", "t2", "t3"}), (0.0, set())):
        facts = title_facts(data, local_share=share)
        assert set(facts.ids[facts.local]) == local  # t4 and so on were never offered
        assert facts.local.shape == facts.popularity.shape == facts.ids.shape == (50,)


def test_test_rows_do_not_matter(tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / "data")
    data = Dataset(tmp_path / "data")
    for file in data.examples("test", windows=data.test_windows):
        table = pq.ParquetFile(file).read()
        ones = table.set_column(table.column_names.index("event"), "event", pa.array(np.ones(len(table), "float32")))
        pq.write_table(ones, file)
    ours, theirs = title_facts(data), title_facts(Dataset(tiny))
    assert np.array_equal(ours.popularity, theirs.popularity)
    assert np.array_equal(ours.local, theirs.local)


def test_the_share_must_be_one(tiny):
    with pytest.raises(ValueError, match=r"`local_share` must be a share of .* Received: local_share=3"):
        title_facts(Dataset(tiny), local_share=3)
