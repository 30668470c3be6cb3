import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest
from helpers.flat_rows import flat

from tfmtr.datasets.kuairand_domains import LIKE, TASKS, USER, kuairand

ROWS = 40
OUTCOMES = {
    *("is_click", "is_like", "is_follow", "is_comment", "is_forward", "is_hate", "is_profile_enter", "long_view"),
    *("play_time_ms", "profile_stay_time", "comment_stay_time"),
}


def tables(seed=0):
    """A log of 40 impressions in tabs 0 to 3, ten users and six videos, and its two tables."""
    rng = np.random.default_rng(seed)
    log = {name: rng.integers(0, 2, ROWS) for name in sorted(OUTCOMES)}
    log |= {
        "user_id": np.arange(ROWS) % 10,
        "video_id": np.arange(ROWS) % 7,  # video 6 is in no table
        "time_ms": 1_650_000_000_000 + rng.permutation(ROWS),
        "date": np.full(ROWS, 20220425),
        "tab": np.arange(ROWS) % 4,
        "duration_ms": 1000 * (1 + np.arange(ROWS) % 7 % 3),
    }
    users = {"user_id": np.arange(10), **{name: [f"[{i},{i + 1})" for i in range(10)] for name in USER}}
    users |= {"onehot_feat0": np.arange(10) % 2, "onehot_feat4": pa.array([None] + [float(i) for i in range(9)])}
    videos = {
        "video_id": np.arange(6),
        "author_id": 100 + np.arange(6),
        "video_type": ["NORMAL", "AD"] * 3,
        "upload_type": ["Kmovie"] * 6,
        "music_type": pa.array([None, 9.0, 4.0, 9.0, 4.0, 9.0]),
        "tag": ["39,1", "2", None, "2", "8,2", "39"],
    }
    return {
        "log_standard_4_22_to_5_08_pure": pa.table(log),
        "user_features_pure": pa.table(users),
        "video_features_basic_pure": pa.table(videos),
    }


def write(folder, tables, suffix=".parquet"):
    folder.mkdir()
    for name, table in tables.items():
        (pq.write_table if suffix == ".parquet" else csv.write_csv)(table, folder / f"{name}{suffix}")
    return folder


def test_the_columns_of_a_small_log(tmp_path):
    source = tables()
    logs = kuairand(write(tmp_path / "data", source), tmp_path, protocol="row")
    table = flat(logs)
    assert table["domain"].to_pylist() == ["1", "2", "3", "3"] * 10
    log = source["log_standard_4_22_to_5_08_pure"]
    assert table["is_click"].to_pylist() == log["is_click"].to_pylist()
    assert table["long_view"].to_pylist() == log["long_view"].to_pylist()
    (row,) = table.slice(11, 1).to_pylist()
    assert (row["user"], row["title"], row["duration_ms"]) == ("1", "4", 2000.0)
    assert (row["onehot_feat4"], row["follow_user_num_range"]) == ("0", "[1,2)")
    assert (row["author_id"], row["music_type"], row["tag"]) == ("104", "4", "8")
    # Of a video that is in no table, and of null codes, nothing is known.
    rows = table.to_pylist()
    assert [rows[6][name] for name in ("author_id", "tag", "music_type")] == ["", "", ""]
    assert rows[0]["onehot_feat4"] == ""
    assert logs.tasks == {"click": "is_click", "long_view": "long_view"}
    assert (logs.scenario, logs.context, logs.id_features) == (
        ("domain",), {"domain": "domain"}, {"user": "top", "title": "top"},
    )  # fmt: skip


def test_likes_are_a_third_task_on_demand(tmp_path):
    source = tables()
    tasks = {**TASKS, "long_view": "long_view:after=click", **LIKE}
    logs = kuairand(write(tmp_path / "data", source), tmp_path, protocol="row", tasks=tasks)
    assert logs.tasks == tasks
    likes = source["log_standard_4_22_to_5_08_pure"]["is_like"]
    assert flat(logs)["is_like"].to_pylist() == likes.to_pylist()


def test_no_outcome_and_no_time_is_an_input(tmp_path):
    """Other outcomes, times and statistics leave every feature as it was."""
    first = tables()
    other = {**tables(seed=1), "video_features_statistic_pure": pa.table({"video_id": [0], "like_cnt": [7]})}
    table, other_table = (
        flat(kuairand(write(tmp_path / name, some), tmp_path, protocol="row"))
        for name, some in (("first", first), ("other", other))
    )
    assert not table["is_click"].equals(other_table["is_click"])
    names = set(table.column_names) - {*TASKS.values(), "split"}
    assert table.select(names).equals(other_table.select(names))
    assert not OUTCOMES & names
    assert not {"time_ms", "date", "hourmin", "tab"} & names


def test_a_split_by_time(tmp_path):
    source = tables()
    table = flat(kuairand(write(tmp_path / "data", source), tmp_path, protocol="time"))
    rank = np.argsort(np.argsort(source["log_standard_4_22_to_5_08_pure"]["time_ms"].to_numpy()))
    assert table["split"].to_pylist() == ["train" if r < 32 else "validation" if r < 36 else "test" for r in rank]


def test_the_published_csv_files_in_two_parts_equal_parquet(tmp_path):
    source = tables()
    table = flat(kuairand(write(tmp_path / "parquet", source), tmp_path))
    log = source.pop("log_standard_4_22_to_5_08_pure")
    parts = {"log_standard_4_08_to_4_21_pure": log.slice(0, 15), "log_standard_4_22_to_5_08_pure": log.slice(15)}
    assert flat(kuairand(write(tmp_path / "csv", {**source, **parts}, ".csv"), tmp_path)).equals(table)


def test_missing_table(tmp_path):
    source = tables()
    del source["video_features_basic_pure"]
    message = "`source` must be a folder with video_features_basic_pure.* (.parquet or .csv). Received: "
    with pytest.raises(ValueError, match=re.escape(message)):
        kuairand(write(tmp_path / "data", source), tmp_path)
    with pytest.raises(ValueError, match=r"log_standard.*no such folder"):
        kuairand(tmp_path / "nowhere", tmp_path)


def test_missing_column(tmp_path):
    source = tables()
    source["user_features_pure"] = source["user_features_pure"].drop_columns("onehot_feat9")
    with pytest.raises(ValueError, match="`users` must have the column 'onehot_feat9'"):
        kuairand(write(tmp_path / "data", source), tmp_path)


def test_a_video_of_two_durations_is_refused(tmp_path):
    source = tables()
    log = source["log_standard_4_22_to_5_08_pure"]
    spans = pa.array([7, *log["duration_ms"].to_pylist()[1:]])
    name = "log_standard_4_22_to_5_08_pure"
    source[name] = log.set_column(log.column_names.index("duration_ms"), "duration_ms", spans)
    with pytest.raises(ValueError, match=r"A video must have one duration. Received: 1 with several, such as 0"):
        kuairand(write(tmp_path / "data", source), tmp_path)


def test_the_fourteen_days(shared_data, tmp_path):
    source = shared_data("kuairand-pure/user_features_pure.parquet").parent
    table = flat(kuairand(source, tmp_path))
    counts = {row["values"]: row["counts"] for row in pc.value_counts(table["domain"]).to_pylist()}
    assert counts == {"1": 20_254, "2": 173_008, "3": 35_067}
    click = {
        row["domain"]: row["is_click_mean"]
        for row in table.group_by("domain").aggregate([("is_click", "mean")]).to_pylist()
    }
    assert (round(click["1"], 3), round(click["2"], 3)) == (0.086, 0.494)
    assert len(set(table.column_names) - {*TASKS.values(), "split"}) == 31
