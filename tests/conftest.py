import collections
import datetime
import gc
import json
import os
from pathlib import Path

# Before NumPy is there. Its threads wait for one another at full speed, and workers of the tests share their cores:
# small matrices take ten times as long as with one thread, the fit of a list model for one.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# TensorFlow's threads wait for one another likewise.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.untraced import untraced

from tfmtr.schema import Feature, Scenario, Schema, Task
from tfmtr.startup import start_quickly

# Here, and in all Python processes that tests start: two of five seconds of CPU each.
start_quickly()
STARTUP = Path(__file__).parent / "startup"
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(STARTUP), os.environ.get("PYTHONPATH")]))

collect_ignore = ["balancing/make_libmtl.py"]  # needs PyTorch

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Otherwise gRPC starts its threads again in every child, even one that is about to become another program: on a busy
# machine Spark's JVM has ended so before it began, after tests of the server.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"

# Files of half a minute and more, the longest first. Workers take whole files, and take those with the most tests first
# where nobody says otherwise: a long file of two tests would be begun last, while the other worker has nothing to do.
LONG_FILES = (
    "test_benchmarks.py",
    "operations/test_days.py",
    "test_training.py",
    "benchmarks/test_fuzz_prepare.py",
    "balancing/test_step.py",
    "operations/test_day.py",
    "sharing/test_contract.py",
    "heads/test_contract.py",
    "test_replicas.py",
    "test_backends.py",
    "datasets/engines/test_spark.py",
    "operations/test_two_stage_days.py",
    "test_keras_habits.py",
    "studies/test_m3oe.py",
    "test_exporting.py",
    "studies/test_territories.py",
    "test_cli.py",
    "test_names.py",
    "operations/test_gating.py",
    "test_extra_package.py",
    "serving/test_process.py",
    "test_growth.py",
    "test_parameter_servers.py",
    "test_scratch.py",
    "studies/test_balancing.py",
    "studies/test_daily_month.py",
    "studies/test_kuairand_funnel.py",
    "studies/test_starting_line.py",
    "pipelines/test_scripts.py",
    "test_tune.py",
    "test_face.py",
)


def set_grappler(on):
    """Whether TensorFlow makes the graphs of this process faster before they run."""
    import tensorflow as tf

    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": not on})


@pytest.fixture(scope="session", autouse=True)
def without_grappler():
    """Graphs as they are traced: making them faster takes a tenth of the tests' time.

    Processes that tests start, and sessions of exports, have graphs as in production.
    """
    set_grappler(False)


@pytest.fixture(scope="module")
def with_grappler():
    """Graphs as in production, for what must be equal in another process to the last bit."""
    set_grappler(True)
    yield
    set_grappler(False)


# Files, tests and fixtures of a second and more, which `-m "not slow"` leaves out with all that use them.
SLOW = frozenset((Path(__file__).parent / "slow.txt").read_text().split())


def pytest_configure(config):
    if missing := [file for file in LONG_FILES if not (Path(__file__).parent / file).is_file()]:
        raise pytest.UsageError(f"`LONG_FILES` names files that are not there: {missing}")
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False  # the order below stays
    # Python looks for cycles after 700 new objects, and so goes again and again through all those of TensorFlow and of
    # traced models.
    gc.set_threshold(50_000, 20, 10)


def is_slow(item):
    """Whether it starts Spark, or `slow.txt` has the test, its file, or a fixture of the file that it uses."""
    folder = Path(__file__).parent
    if not item.path.is_relative_to(folder):
        return False
    file = item.path.relative_to(folder).as_posix()
    names = (getattr(item, "originalname", item.name), *getattr(item, "fixturenames", ()))
    values = getattr(getattr(item, "callspec", None), "params", {}).values()
    is_spark = "spark" in names or any(isinstance(value, str) and value == "spark" for value in values)
    return is_spark or file in SLOW or any(f"{file}::{name}" in SLOW for name in names)


@pytest.hookimpl(tryfirst=True)
def pytest_itemcollected(item):
    if is_slow(item):
        item.add_marker(pytest.mark.slow)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Long files first, then those with the most tests; the tests of a file stay in their order."""
    counts = collections.Counter(item.path for item in items)
    long = {Path(__file__).parent / file: place for place, file in enumerate(LONG_FILES)}
    items.sort(key=lambda item: (long.get(item.path, len(long)), -counts[item.path], str(item.path)))


def pytest_collection_finish():
    """What is imported by now stays, and is no part of what Python looks through for cycles, as Keras often asks."""
    gc.freeze()


@pytest.fixture(scope="session")
def shared_data():
    """Returns a function from a file's name to its path among the public data sets, which skips where it is absent."""

    def path(name):
        file = SHARED_DATA / name
        if not file.exists():
            missing = f"needs the public data set {name}, which is not at {file}"
            (pytest.fail if os.environ.get("TFMTR_REQUIRE_DATA") else pytest.skip)(missing)
        return file

    return path


@pytest.fixture
def eager():
    """TensorFlow without tracing, which takes longer than a few steps."""
    with untraced():
        yield


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A prepared directory of 200 users, 50 titles and 5 territories (one of them unknown) with something to learn."""
    path = tmp_path_factory.mktemp("tiny") / "data"
    write_tiny(path)
    return path


@pytest.fixture(scope="session")
def tiny_two(tmp_path_factory):
    """The same with a second task, `like`, of some events."""
    path = tmp_path_factory.mktemp("tiny-two") / "data"
    write_tiny(path, tasks=("event", "like"))
    return path


def write_events(path, label="event", first=datetime.datetime(2025, 1, 9, 12)):
    """Writes `events.parquet` of a directory whose examples are written: the positives, in windows of a day."""
    tables = []
    for file in sorted(path.glob("examples/**/*.parquet")):
        split, _, window = (part.partition("=")[2] for part in file.parts[-4:-1])
        table = pq.read_table(file, partitioning=None).to_pandas()
        table = table[table[label] > 0][["user", "title"]].drop_duplicates()
        table["time"] = np.datetime64(first + datetime.timedelta(days=int(window)), "us")
        tables.append(table.assign(window=int(window), split=split, is_history=True))
    events = pd.concat(tables).sort_values(["user", "time", "title"])
    pq.write_table(pa.Table.from_pandas(events, preserve_index=False), path / "events.parquet")


def write_tiny(path, rows=3000, seed=0, tasks=("event",)):
    rng = np.random.default_rng(seed)
    territories, num_users, num_titles = ["DE", "FR", "PL", "CZ", "XX"], 200, 50
    territory_of = rng.integers(0, 5, num_users)
    age = rng.normal(40, 10, num_users)
    user_vectors = rng.normal(size=(num_users, 8)).astype("float32")
    title_vectors = rng.normal(size=(num_titles, 6)).astype("float32")
    words = ["drama", "comedy", "news"]
    genres = [list(rng.choice(words, rng.integers(0, 4), replace=False)) for _ in range(num_titles)]
    language = rng.choice(["de", "en"], num_titles)
    taste = rng.normal(size=(3, 8, 6))[[0, 0, 1, 1, 2]]  # a group's own
    schema = Schema(
        features=[
            Feature("territory", "user", "id", territories[:4]),
            Feature("age", "user", "number", mean=40.0, std=10.0),
            Feature("user_vector", "user", "vector", width=8),
            Feature("title_vector", "title", "vector", width=6),
            Feature("genres", "title", "set", ("drama", "comedy"), width=2),
            Feature("language", "title", "id", ("de", "en")),
        ],
        tasks=[Task("event", mean=0.2), Task("like", mean=0.1)][: len(tasks)],
        scenario=Scenario(["territory"], {("DE",): "west", ("FR",): "west", ("PL",): "east", ("CZ",): "east"}),
    )
    path.mkdir(parents=True)
    schema.save(path)
    for role, vectors in (("user", user_vectors), ("title", title_vectors)):
        store = path / "vectors" / role
        store.mkdir(parents=True)
        np.save(store / "vectors.npy", vectors)
        pq.write_table(pa.table({role: [f"{role[0]}{i}" for i in range(len(vectors))]}), store / "ids.parquet")

    def examples(split, sampling, window, count, candidates):
        users, titles = rng.choice(candidates, count), rng.integers(0, num_titles, count)
        logits = np.einsum("bi,bij,bj->b", user_vectors[users], taste[territory_of[users]], title_vectors[titles])
        labels = (rng.random(count) < 1 / (1 + np.exp(1.5 - 0.5 * logits))).astype("float32")
        table = {
            "user": [f"u{i}" for i in users],
            "title": [f"t{i}" for i in titles],
            "territory": [territories[t] for t in territory_of[users]],
            "age": age[users],
            "genres": pa.array([genres[i] for i in titles], pa.list_(pa.string())),
            "language": [language[i] for i in titles],
            "event": labels,
            "like": labels * (title_vectors[titles, 0] > 0),
            "user_row": users,
            "title_row": titles,
        }
        folder = path / f"examples/split={split}/sampling={sampling}/window={window}"
        folder.mkdir(parents=True)
        pq.write_table(pa.table(table), folder / "bucket-0.parquet", row_group_size=700)

    for window in (0, 1, 2):
        examples("train", "random", window, rows, np.arange(0, 100))
        examples("train", "active", window, rows // 2, np.arange(100, 140))
    examples("validation", "random", 0, rows // 3, np.arange(140, 160))
    for window in (1, 2, 3):
        examples("test", "random", window, rows // 2, np.arange(160, 200))

    pq.write_table(
        pa.table(
            {
                "user": [f"u{i}" for i in range(num_users)],
                "territory": [territories[t] for t in territory_of],
                "age": age,
                "user_row": np.arange(num_users),
            }
        ),
        path / "users.parquet",
    )
    write_events(path)
    titles = [f"t{i}" for i in range(num_titles)]
    pq.write_table(
        pa.table(
            {
                "title": titles,
                "name": [f"Title {i}" for i in range(num_titles)],
                "genres": pa.array(genres, pa.list_(pa.string())),
                "language": language,
            }
        ),
        path / "titles.parquet",
    )
    # Territory number t lacks every third title, beginning with t.
    catalogue = [
        (territory, title, window)
        for t, territory in enumerate(territories)
        for i, title in enumerate(titles)
        for window in range(5)
        if (i + t) % 3
    ]
    names = ("territory", "title", "window")
    pq.write_table(
        pa.table(dict(zip(names, map(list, zip(*catalogue, strict=True)), strict=True))), path / "availability.parquet"
    )
    days = [datetime.datetime(2025, 1, 9 + window).isoformat() for window in range(5)]
    windows = [{"window": window, "start": days[window], "end": days[window + 1]} for window in range(4)]
    report = {"fingerprint": "ab" * 32, "windows": windows, "warnings": []}
    (path / "prepare.json").write_text(json.dumps(report))
