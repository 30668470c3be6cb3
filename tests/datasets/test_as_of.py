"""What is known as of a window does not change with what comes after it: nothing later is used anywhere."""

import datetime
import hashlib

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from tfmtr.datasets.logs import Calendar
from tfmtr.datasets.prepare import prepare
from tfmtr.datasets.preparing import buckets

OPTIONS = {"alpha": 3.0, "progress": False}
FIRST_CUT, LAST_CUT = 1, 3


@pytest.fixture(scope="module")
def whole(make_logs, module_tables, tmp_path_factory):
    """The small log, prepared whole, and prepared without the events from each window on.

    `{user_history: (Dataset, {window: Dataset})}`: without vectors of history, rows of the user store are the same.
    """
    events, users, titles = module_tables
    for number in range(4):  # titles that are new in window 0, 1, 2 and 3
        is_early = events.ts < pd.Timestamp(2024, 1, 9 + number)
        events = events[(events.asin != f"t{20 + number}") | ~is_early]
    folder = tmp_path_factory.mktemp("as_of")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(buckets, "BUCKET_EVENTS", 10_000)  # the number of buckets must not depend on what is cut

        def both(user_history):
            def make(kept, name, **changes):
                logs = make_logs(kept, users, titles, user_history=user_history, **changes)
                return prepare(logs, folder / f"{name}-{user_history}", **OPTIONS)

            data = make(events, "whole")
            windows = {row["window"]: row for row in data.report["windows"]}
            end = pd.Timestamp(windows[0]["end"])
            cuts = {}
            for window in range(FIRST_CUT, LAST_CUT + 1):
                calendar = Calendar(datetime.timedelta(days=1), 4, window - 1, end=end)
                kept = events[events.ts < pd.Timestamp(windows[window]["start"])]
                cuts[window] = make(kept, f"cut-{window}", calendar=calendar)
            return data, cuts

        return {user_history: both(user_history) for user_history in (True, False)}


def files_before(data, window):
    """`{path: SHA-256}` of the example files of all windows before one."""
    found = {}
    for file in data.path.glob("examples/*/*/window=*/*.parquet"):
        if int(file.parts[-2].removeprefix("window=")) < window:
            path = str(file.relative_to(data.path))
            found[path] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def tables_before(data, window):
    """`{path: table}` of the same files."""
    return {path: pq.ParquetFile(data.path / path).read() for path in files_before(data, window)}


@pytest.mark.parametrize("window", range(FIRST_CUT, LAST_CUT + 1))
def test_example_files_before_a_window_are_the_same_bytes(whole, window):
    data, cuts = whole[False]
    own = files_before(data, window)
    assert {path.split("/")[3] for path in own} == {f"window={number}" for number in range(-3, window)}
    assert own == files_before(cuts[window], window)


@pytest.mark.parametrize("window", range(FIRST_CUT, LAST_CUT + 1))
def test_examples_and_their_vectors_before_a_window_do_not_change(whole, window):
    data, cuts = whole[True]
    # `user_row` counts the states of the users before, later ones too: the vectors that it points to are compared.
    own, others = (tables_before(one, window) for one in (data, cuts[window]))
    assert own.keys() == others.keys()
    assert {path.split("/")[3] for path in own} == {f"window={number}" for number in range(-3, window)}
    vectors = [one.vectors("user").vectors for one in (data, cuts[window])]
    for path, table in own.items():
        other = others[path]
        assert table.drop_columns("user_row").equals(other.drop_columns("user_row"))
        rows = [part["user_row"].to_numpy() for part in (table, other)]
        np.testing.assert_array_equal(vectors[0][rows[0]], vectors[1][rows[1]])


@pytest.mark.parametrize("window", range(FIRST_CUT, LAST_CUT + 1))
def test_catalogue_and_users_as_of_a_window_do_not_change(whole, window):
    data, cuts = whole[True]
    tables = [pd.read_parquet(one.path / "availability.parquet") for one in (data, cuts[window])]
    shown = [table[table.window == window].reset_index(drop=True) for table in tables]
    assert f"t{20 + window}" not in set(shown[0].title)
    assert f"t{20 + window - 1}" in set(shown[0].title)
    pd.testing.assert_frame_equal(*shown)
    states = []
    for one in (data, cuts[window]):
        ids = pq.read_table(one.vectors("user").ids).to_pandas()
        ids["row"] = range(len(ids))
        states.append(ids[ids.window <= window].groupby("user").row.max())  # the state that the window sees
    assert states[0].index.equals(states[1].index)
    own, other = (one.vectors("user").vectors[rows] for one, rows in zip((data, cuts[window]), states, strict=True))
    np.testing.assert_array_equal(own, other)
    assert (own != 0).any()
    titles = [one.vectors("title").vectors for one in (data, cuts[window])]
    np.testing.assert_array_equal(*titles)


@pytest.mark.parametrize("window", range(FIRST_CUT, LAST_CUT + 1))
def test_events_before_a_window_do_not_change(whole, window):
    data, cuts = whole[True]
    tables = [pd.read_parquet(one.path / "events.parquet") for one in (data, cuts[window])]
    before = tables[0][tables[0].window < window].reset_index(drop=True)
    assert len(before) > 400
    pd.testing.assert_frame_equal(before, tables[1])  # models, baselines and masks see the same
    schemas = [one.schema for one in (data, cuts[window])]
    assert schemas[0] == schemas[1]
