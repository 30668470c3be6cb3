"""No name that a user brings meets one of the preparation's own: it comes through, or is refused before any work."""

import ast
import datetime
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import tfmtr.datasets
from tfmtr.datasets.logs import Calendar, Logs
from tfmtr.datasets.names import PREFIX, check_names, inside, why_reserved
from tfmtr.datasets.prepare import prepare

SQL = "all as by case desc end from group having in into key left limit natural not null on or order select table union"
ROLES = ("tasks", "training", "users", "titles")


def base(users=300, titles=40, per=12, seed=0):
    """Events with clicks, some of them purchases, users and titles."""
    rng = np.random.default_rng(seed)
    number = users * per
    user = pd.DataFrame({"user": [f"u{i:04d}" for i in range(users)], "territory": rng.choice(["US", "DE"], users)})
    title = pd.DataFrame({"title": [f"t{i:03d}" for i in range(titles)]})
    seconds = pd.to_timedelta(rng.integers(0, 28 * 86400, number), unit="s")
    event = pd.DataFrame(
        {
            "user": rng.choice(user.user, number),
            "title": rng.choice(title.title, number),
            "time": pd.Timestamp("2024-03-01") + seconds,
            "click": (rng.random(number) < 0.5).astype("int64"),
            "pos": rng.integers(1, 20, number),
        }
    )
    event["buy"] = ((rng.random(number) < 0.3) & (event.click == 1)).astype("int64")
    return event, user.assign(age=rng.integers(18, 70, users)), title.assign(genre=np.arange(titles) % 2)


@pytest.fixture
def prepared(tmp_path):
    """A function from tables and `Logs` arguments to the `Dataset` folder and all its examples."""

    def run(events, users, titles, **changes):
        paths = {}
        for name, table in (("events", events), ("users", users), ("titles", titles)):
            paths[name] = tmp_path / f"{name}.parquet"
            table.to_parquet(paths[name], index=False)
        calendar = Calendar(datetime.timedelta(days=7), num_train=2, num_test=1)
        options = {"columns": {}, "calendar": calendar, "tasks": {"click": "click"}, **changes}
        data = prepare(Logs(**paths, **options), tmp_path / "out", overwrite=True, progress=False)
        files = sorted(data.path.glob("examples/*/*/*/*.parquet"))
        return data, pd.concat([pq.ParquetFile(file).read().to_pandas() for file in files])

    return run


def own_names():
    """Words that may be a column in what the preparation computes: of its code, and of SQL.

    Of the code the keywords of calls, as in `table.mutate(rank=...)`, and texts of one word.
    """
    words = set(SQL.split())
    for file in sorted(Path(tfmtr.datasets.__file__).parent.rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        if "import ibis" in text:
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.Call):
                    words |= {keyword.arg for keyword in node.keywords if keyword.arg}
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    words |= {node.value} if re.fullmatch(r"\w+", node.value) else set()
    return sorted({word.casefold(): word for word in sorted(words)}.values())  # no two that differ in case only


@pytest.mark.parametrize("turn", [0, 2])
def test_columns_named_like_the_preparation_s_own_come_through(prepared, turn):
    """Every word is a column of the events in one turn and of users or titles in the other: all cells are the log's."""
    words = own_names()
    assert {"rank", "draw", "order", "wanted", "is_positive", "next_window", "seen_in", "since"} < set(words)
    assert not [word for word in words if word.casefold().startswith(PREFIX)]
    events, users, titles = base(users=60, titles=20, per=20)
    rows = {"tasks": len(events), "training": len(events), "users": len(users), "titles": len(titles)}
    brought = {role: {} for role in ROLES}
    for number, word in enumerate(words):
        role, name = ROLES[(number + turn) % 4], word.upper() if number // 4 % 2 else word
        if why_reserved(name, role, ["click"]) is None and name.casefold() != "click":
            brought[role][name] = np.arange(rows[role], dtype="float64") + number  # no two cells of a row are equal
    carried = {**brought["tasks"], **brought["training"]}
    carried = pd.DataFrame({f"c{i}": column for i, column in enumerate(carried.values())})
    columns = dict(zip([*brought["tasks"], *brought["training"]], carried.columns, strict=True))
    data, found = prepared(
        pd.concat([events, carried], axis=1),
        pd.concat([users.drop(columns="age"), pd.DataFrame(brought["users"])], axis=1),
        pd.concat([titles.drop(columns="genre"), pd.DataFrame(brought["titles"])], axis=1),
        tasks={"click": "click", **{name: f"{columns[name]}:regression" for name in brought["tasks"]}},
        training={name: columns[name] for name in brought["training"]},
    )
    found = found[found[next(iter(brought["tasks"]))].notna()].reset_index(drop=True)  # drawn negatives have no label
    assert len(found) > 500
    assert min(len(names) for names in brought.values()) > 30
    first = found[next(iter(brought["tasks"]))].to_numpy() - next(iter(brought["tasks"].values()))[0]
    event = events.iloc[first.astype(int)].reset_index(drop=True)
    assert (event.user == found.user.to_numpy()).all()
    assert (event.title == found.title.to_numpy()).all()
    assert (event.click == found.click.to_numpy()).all()
    user, title = (found[role].str[1:].astype(int).to_numpy() for role in ("user", "title"))
    for role, place in zip(ROLES, (first.astype(int), first.astype(int), user, title), strict=True):
        for name, column in brought[role].items():
            np.testing.assert_array_equal(found[name], column[place].astype("float32"), err_msg=f"{role} {name}")
    for role in ("users", "titles"):
        table = pq.read_table(data.path / f"{role}.parquet")
        for name, column in brought[role].items():
            np.testing.assert_array_equal(table[name], column.astype("float32"), err_msg=f"{role}.parquet {name}")


def test_a_logged_negative_keeps_its_training_columns(prepared):
    events, users, titles = base()
    columns = {"rank": "pos", "draw": "pos"}
    _, examples = prepared(events, users, titles, training=columns)
    assert all(examples[name][examples.click == 0].std() > 5 for name in columns)


def test_tasks_named_like_columns_of_the_preparation(prepared):
    events, users, titles = base(users=150)
    names = ("order", "wanted")
    _, plain = prepared(
        events, users, titles, tasks={"is_event": "click", **dict.fromkeys(("buy", "bought"), "buy:after=is_event")}
    )
    _, strange = prepared(events, users, titles, tasks={"click": "click", **dict.fromkeys(names, "buy:after=click")})
    assert all(0 < strange[name].sum() < strange.click.sum() < len(strange) for name in names)
    pd.testing.assert_frame_equal(
        strange.rename(columns={"order": "buy", "wanted": "bought", "click": "is_event"}), plain
    )


def test_prepared_files_have_no_column_that_is_unguarded(prepared):
    """Whatever a file has beside what was brought is refused for what is written into it."""
    events, users, titles = base(users=100)
    users["taste"], titles["image"] = [[1.0, 2.0]] * len(users), [[3.0]] * len(titles)
    data, _ = prepared(events, users, titles, training={"position": "pos"})
    brought = {"click", "position", "age", "genre", "territory"}
    written = {"examples": ROLES, "users.parquet": ROLES[2:3], "titles.parquet": ROLES[3:]}
    for file in data.path.rglob("*.parquet"):
        parts = file.relative_to(data.path).parts
        names = {*pq.ParquetFile(file).schema_arrow.names, *(part.split("=")[0] for part in parts if "=" in part)}
        for role in written.get(parts[0], ()):
            for name in names - brought | {"territory"}:
                for spelled in (name, name.upper()):
                    assert why_reserved(spelled, role, ["click"]), (file, role, spelled)
    for feature in data.schema.features:
        if feature.name not in brought:  # the stores' vectors
            assert why_reserved(feature.name, "users", ["click"]), feature


def test_vectors_and_what_is_no_feature_leave_no_name_behind(prepared):
    events, users, titles = base(users=100)
    names, stores = ("user_vector", "k", "title_vector", "a vector", "row", "window"), []
    for spelled in (names, [f"v{i}" for i in range(len(names))]):
        tables = []
        for table in (users, titles):
            vectors = {name: [[float(i), 0.5]] * len(table) for i, name in enumerate(spelled)}
            tables.append(table.assign(**vectors, since=datetime.date(2020, 1, 1)))
        data, _ = prepared(events, *tables)
        stores.append([np.array(data.vectors(role).vectors) for role in ("user", "title")])
    for strange, plain in zip(*stores, strict=True):
        np.testing.assert_array_equal(strange, plain)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"users": ["k"]},
            r"column 'k' of `users` must have another name: it is an input of every request.*rename the",
        ),
        ({"users": ["diversity", "k"]}, r"'diversity' of `users`.*'k' of `users`.*Received: 'diversity', 'k'$"),
        ({"users": ["weight_click"]}, "an input of every request"),
        ({"users": ["Weight_CLICK"]}, "an input of every request"),
        ({"users": ["user age"]}, "column 'user age' of `users`.*TensorFlow takes only a-z.*rename the column"),
        (
            {"tasks": ["buy click"]},
            "task 'buy click' must have another name: TensorFlow.*choose another name before `=`",
        ),
        ({"tasks": ["a|b"]}, "task 'a|b'"),
        ({"titles": [""]}, "column '' of `titles`"),
        ({"titles": ["_x"]}, "a letter or a digit in front"),
        ({"titles": ["années"]}, "column 'années'"),
        ({"training": ["a/b"]}, "training column 'a/b'.*choose another name"),
        (
            {"users": ["age", "Age"]},
            "column 'Age' of `users`.* is, but for upper and lower.*, that of column 'age' of `users`",
        ),
        (
            {"users": ["age"], "titles": ["AGE"]},
            "column 'AGE' of `titles`.* is, but for upper and lower .*, that of column 'age' of `users`",
        ),
        ({"users": ["age"], "titles": ["age"]}, "column 'age' of `titles`.* that of column 'age' of `users`; rename"),
        ({"users": ["Click"]}, "column 'Click' of `users`.* is, but for upper and lower case.*, that of task 'click'"),
        ({"training": ["click"]}, "training column 'click' .* that of task 'click'; choose"),
        (
            {"training": ["Age"], "users": ["age"]},
            "column 'age' of `users` .* is, but for .*, that of training column 'Age'",
        ),
        (
            {"tasks": ["Click", "buy"]},
            "task 'Click' .* is, but for upper and lower case.*, that of task 'click'; choose",
        ),
        ({"users": ["a.b", "a-b"]}, "column 'a-b' of `users` .* is, but for .*punctuation, that of column 'a.b'"),
        (
            {"users": ["arg_1st"], "titles": ["1st"]},
            "column '1st' of `titles` .* is, but for .* that of column 'arg_1st'",
        ),
        ({"users": ["request-territory"]}, "an input of every request"),
        ({"users": ["class"]}, "column 'class' of `users` .* Python's own cannot be an argument of the exported model"),
        ({"titles": ["self"]}, "column 'self' of `titles` .* Python's own"),
        ({"tasks": ["model"]}, "task 'model' .* the served model has it"),
        ({"tasks": ["click_teacher"]}, "task 'click_teacher' .* heads make it of the task 'click'"),
        ({"tasks": ["scenario"]}, "task 'scenario' .* an input of every model"),
        ({"tasks": ["user"]}, "task 'user' .* the prepared tables have a column of this name"),
        ({"training": ["Title_Row"]}, "training column 'Title_Row' .* the prepared tables"),
        ({"titles": ["window"]}, "column 'window' of `titles` .* the folders of the examples have it"),
    ],
)
def test_refused_names(changes, message):
    tasks = ["click", *changes.get("tasks", ())]
    tables = {role: dict.fromkeys(changes.get(role, ()), "number") for role in ("users", "titles")}
    with pytest.raises(ValueError, match=message):
        check_names(tasks, changes.get("training", ()), **tables)


def test_names_that_only_look_reserved():
    tasks, training = ["click", "view_teacher", "click_2", "2nd.watch-time", "seen"], ["position", "elapsed", "where"]
    users = {"model": "id", "weight_kg": "number", "log__age": "number", "K.": "id", "since": None, "v": "vector"}
    check_names(tasks, training, users, {"k": "id", "since": None, "v": "vector", "title_embedding": "id"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"users": {"k": 1}}, "column 'k' of `users` must have another name"),
        ({"titles": {"Age": 1}}, "column 'Age' of `titles` must have another name"),
        ({"tasks": {"user": "buy"}}, "task 'user' must have another name"),
        ({"tasks": {"territory": "buy"}}, "task 'territory' must have another name"),
        ({"training": {"age": "pos"}}, "column 'age' of `users` must have another name"),
    ],
)
def test_a_refused_name_is_refused_before_any_work(prepared, changes, message, monkeypatch):
    monkeypatch.setattr("tfmtr.datasets.preparing.checked_log.check_unique", lambda *_: pytest.fail("worked"))
    events, users, titles = base(users=20, titles=10)
    tasks = {"click": "click", **changes.get("tasks", {})}
    users, titles = users.assign(**changes.get("users", {})), titles.assign(**changes.get("titles", {}))
    with pytest.raises(ValueError, match=message):
        prepared(events, users, titles, tasks=tasks, training=changes.get("training", {}))


def test_inside_names_are_different():
    assert len({inside(name) for name in ("age", "log__age", "log__log__age", "territory")}) == 4
