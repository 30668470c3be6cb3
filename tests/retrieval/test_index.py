import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tfmtr import training
from tfmtr.datasets.dataset import Dataset
from tfmtr.retrieval.index import build_index


def test_the_catalogue_is_the_newest_one_or_that_of_the_window_asked_for(tiny, tmp_path):
    folder = shutil.copytree(tiny, tmp_path / "data")
    data = Dataset(folder)
    newest = data.test_windows[-1] + 1
    rows = [("PL", "t1", newest), ("PL", "t3", newest), ("DE", "t3", newest), ("PL", "t7", 2), ("FR", "t8", 2)]
    columns = dict(zip(("territory", "title", "window"), zip(*rows, strict=True), strict=True))
    table = pa.table({**{k: list(v) for k, v in columns.items()}})
    pq.write_table(table.set_column(2, "window", table["window"].cast("int64")), folder / "availability.parquet")
    model = training.Recipe(units=(8, 4)).build(data.schema)

    def catalogues(index):
        names = index.catalogue.territory_index.get_vocabulary()[1:]  # the first is the unknown territory
        masks = np.asarray(index.catalogue.available)[1:]
        return {name: np.flatnonzero(mask).tolist() for name, mask in zip(names, masks, strict=True)}

    assert catalogues(build_index(model, data, data.schema)) == {"PL": [1, 3], "DE": [3]}
    assert catalogues(build_index(model, data, data.schema, window=2)) == {"PL": [7], "FR": [8]}
