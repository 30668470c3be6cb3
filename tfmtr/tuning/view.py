"""What a search may see of a prepared directory: the training windows, and nothing of a test window."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tfmtr.datasets.dataset import IMPRESSIONS, Dataset
from tfmtr.evaluation.past import EVENTS

LAST = 0  # the last training window
KEPT = (
    "format",
    "fingerprint",
    "times",
    "forgotten",
    IMPRESSIONS,
)  # keys of prepare.json that training and lists ask for
LINKED = ("schema.json", "titles.parquet", "vectors")
BY_WINDOW = ("availability.parquet", EVENTS)
USER_COLUMNS = ("user", "territory")  # features of the table are of the newest window


def training_view(data: Dataset, folder: Path) -> Dataset:
    """Makes a directory that has a prepared directory's training windows only.

    Examples are links to the folders of training and validation rows of windows 0 and before. Catalogues and events
    are copied up to that window, so who reads them all has read no test window; the users table without features.
    Titles and stores of vectors are links: a store's rows are read where an example names them.

    Args:
        data: The `Dataset`.
        folder: Where to make it; must not exist.

    Returns:
        The `Dataset` of the folder. It has no test window, and `next_window` is 1.
    """
    source = data.path.absolute()
    folder.mkdir(parents=True)
    for split in ("train", "validation"):
        for own in sorted(source.glob(f"*/split={split}/sampling=*/window=*")):
            if int(own.name.partition("=")[2]) <= LAST:
                link = folder / own.relative_to(source)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(own)
    for name in LINKED:
        if (source / name).exists():
            (folder / name).symlink_to(source / name)
    for name in BY_WINDOW:
        if (source / name).exists():
            _copy_windows(source / name, folder / name)
    if (source / "users.parquet").exists():
        table = pq.read_schema(source / "users.parquet").names
        columns = [name for name in USER_COLUMNS if name in table]
        pq.write_table(pq.read_table(source / "users.parquet", columns=columns), folder / "users.parquet")
    report = {name: data.report[name] for name in KEPT if name in data.report}
    report["windows"] = [row for row in data.report["windows"] if row["window"] <= LAST]
    (folder / "prepare.json").write_text(json.dumps(report), encoding="utf-8")
    return Dataset(folder)


def _copy_windows(source: Path, target: Path) -> None:
    """Copies a table's rows of training windows, in their order."""
    file = pq.ParquetFile(source)
    with pq.ParquetWriter(target, file.schema_arrow) as writer:
        for batch in file.iter_batches():
            table = pa.Table.from_batches([batch])
            writer.write_table(table.filter(pc.less_equal(table["window"], LAST)))  # pyright: ignore[reportAttributeAccessIssue]
