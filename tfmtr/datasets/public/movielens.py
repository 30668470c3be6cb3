"""MovieLens-1M as three tables: 6,040 users in ten US postal regions, 3,883 movies, a million ratings.

A rating is an event. Its time is trusted only after `TRUSTED_AFTER`: in copies of the archive whose
earlier times were restored, their presence depends on the rating itself. The calendar therefore starts
there: week 0 serves as history and activity, weeks 1 to 5 train, weeks 6 to 8 test.

Reference: Harper and Konstan, The MovieLens Datasets: History and Context, TiiS 2015,
https://doi.org/10.1145/2827872; https://grouplens.org/datasets/movielens/1m/.
"""

# Arrow makes its functions when it is imported:
# pyright: reportAttributeAccessIssue=false

import datetime
import hashlib
import os
import re
import shutil
import urllib.request
import zipfile
import zlib
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tfmtr.datasets.logs import Calendar, Logs

URL = "https://files.grouplens.org/datasets/movielens/ml-1m.zip"
MD5 = "c4d9eecfca2ab87c1945afe126590906"
TRUSTED_AFTER = datetime.datetime.fromtimestamp(975_768_738, datetime.UTC)

# First digit of the zip code: neighbours together, and in every group a region of above-average volume.
GROUPS = {
    **dict.fromkeys("012", "east"),  # New England and NJ; NY, PA, DE; DC, MD, VA, NC, SC, WV
    **dict.fromkeys("367", "south"),  # AL, FL, GA, MS, TN; IL, KS, MO, NE; AR, LA, OK, TX
    **dict.fromkeys("45", "lakes"),  # IN, KY, MI, OH; IA, MN, MT, ND, SD, WI
    **dict.fromkeys("89", "west"),  # mountain; pacific
}

# File -> what a line looks like, and the columns that we take from it.
LINES = {
    "ratings.dat": (
        "UserID::MovieID::Rating::Timestamp",
        r"(?P<user>\d+)::(?P<title>\d+)::(?P<rating>[1-5])::(?P<time>\d{1,10})",
    ),
    "users.dat": (
        "UserID::Gender::Age::Occupation::Zip-code",
        r"(?P<user>\d+)::(?P<gender>[FM])::(?P<age>\d+)::(?P<occupation>\d+)::(?P<territory>\d?)[^:]*",
    ),
    "movies.dat": ("MovieID::Title::Genres", r"(?P<title>\d+)::(?P<name>.+)::(?P<genres>[^:]*)"),
}


def movielens(
    source: Path | None, out: str | os.PathLike, *, download: Annotated[bool, "Fetch the official archive."] = False
) -> Logs:
    """Writes the three tables of MovieLens-1M and describes them.

    Users have `territory` (first digit of the zip code, null where there is none), `gender`, `age` and
    `occupation` (the published codes, as text); titles have `name` and `genres`; events have `rating`.

    Args:
        source: The official `ml-1m.zip`, or the folder that it unpacks to; `None` with `download=True`.
        out: Folder for `events.parquet`, `users.parquet` and `titles.parquet`; made if missing.
        download: Whether to fetch the official archive into `out` and check its published MD5.

    Returns:
        The `Logs`: weekly windows, 5 for training and 3 for testing, ten territories in four groups.

    Raises:
        ValueError: If `source` is missing, no complete archive, lacks a file or has a malformed line,
            or if the downloaded archive has another checksum.
        ConnectionError: If the archive cannot be downloaded.
    """
    if download != (source is None):
        raise ValueError(
            "`source` must be the path of ml-1m.zip or of the folder that it unpacks to, or None with download=True. "
            f"Received: source={source!r}, download={download!r}"
        )
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    folder = find_folder(_download(out) if source is None else Path(source))
    ratings, users, movies = (parse(folder, name) for name in LINES)

    ratings["rating"] = ratings["rating"].cast(pa.int8())
    ratings["time"] = ratings["time"].cast(pa.int64()).cast(pa.timestamp("s")).cast(pa.timestamp("us"))
    users["territory"] = pc.if_else(pc.equal(users["territory"], ""), None, users["territory"])
    movies["genres"] = pc.split_pattern(movies["genres"], "|")
    for name, columns in {"events": ratings, "users": users, "titles": movies}.items():
        pq.write_table(pa.table(columns), out / f"{name}.parquet")

    week = datetime.timedelta(weeks=1)
    return Logs(
        events=out / "events.parquet",
        users=out / "users.parquet",
        titles=out / "titles.parquet",
        columns={"user": "user", "title": "title", "territory": "territory", "time": "time", "name": "name"},
        calendar=Calendar(
            length=week,
            num_train=5,
            num_test=3,
            end=TRUSTED_AFTER + 6 * week,
            start=TRUSTED_AFTER + datetime.timedelta(seconds=1),
        ),
        availability="anywhere",
        groups=GROUPS,
        user_history=False,
    )


def _download(out: Path) -> Path:
    archive, part = out / "ml-1m.zip", out / "ml-1m.zip.part"
    try:
        with urllib.request.urlopen(URL, timeout=60) as response, part.open("wb") as file:
            shutil.copyfileobj(response, file)
    except OSError as error:
        raise ConnectionError(
            f"{URL} could not be downloaded; check the connection, or fetch it elsewhere and pass its path as "
            f"`source`. Received: {error}"
        ) from error
    with part.open("rb") as file:
        received = hashlib.file_digest(file, "md5").hexdigest()
    if received != MD5:
        raise ValueError(f"{URL} must have the published MD5 {MD5}; download it again. Received: {received} in {part}")
    return part.rename(archive)


def find_folder(source: Path) -> Path | zipfile.Path:
    """The folder with the .dat files, on disk or inside the archive (a `Path` or a `zipfile.Path`)."""
    if source.is_dir():
        root = source
    elif not source.exists():
        raise ValueError(f"`source` must be ml-1m.zip or a folder; there is no such file. Received: source={source}")
    elif zipfile.is_zipfile(source):
        root = zipfile.Path(source)
    else:
        raise ValueError(
            "`source` must be a complete .zip archive or the folder that it unpacks to; this file is neither, perhaps "
            f"its download broke off. Received: source={source}"
        )
    folders = [folder for folder in (root, root / "ml-1m") if folder.is_dir()]
    present = {folder: {file.name for file in folder.iterdir()} for folder in folders}
    folder = max(folders, key=lambda folder: len(present[folder] & set(LINES)))
    if missing := set(LINES) - present[folder]:
        raise ValueError(
            f"`source` must have {sorted(LINES)} at its top or in ml-1m/; it lacks {sorted(missing)}. "
            f"Received: source={source} with {sorted(set().union(*present.values()))}"
        )
    return folder


def parse(folder: Path | zipfile.Path, name: str) -> dict[str, pa.Array]:
    """The columns of the file `name`, as text."""
    layout, pattern = LINES[name]
    try:
        text = (folder / name).read_bytes().decode("latin-1")
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(
            f"`source` must be an intact .zip archive; download it again. Received: {error} in {folder / name}"
        ) from error
    lines = pc.split_pattern(pa.scalar(text, pa.large_string()), "\n").values
    fields = pc.extract_regex(lines, f"^{pattern}\r?$")
    is_blank = pc.match_substring_regex(lines, r"^\s*$")
    malformed = pc.and_(fields.is_null(), pc.invert(is_blank))
    if pc.any(malformed).as_py():
        row = pc.index(malformed, True).as_py()
        raise ValueError(
            f"Every line of {name} must be {layout}; correct or remove the line. "
            f"Received: line {row + 1} of {folder / name}: {lines[row].as_py()[:200]!r}"
        )
    fields = fields.filter(pc.invert(is_blank))
    if len(fields) == 0:
        raise ValueError(f"{name} must have at least one line {layout}. Received: an empty file {folder / name}")
    columns = re.findall(r"\?P<(\w+)>", pattern)
    return {column: pc.struct_field(fields, column).cast(pa.string()) for column in columns}
