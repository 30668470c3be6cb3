import re
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from helpers.flat_rows import flat

from studies.given_rows import read
from tfmtr.datasets.domains import look_up, split_rows
from tfmtr.datasets.movielens_domains import movielens_domains

TRUSTED_AFTER = 975_768_738
ARCHIVE = "movielens-1m/ml-1m-rebuilt.zip"

# Twenty ratings by three users, one a domain; the third rates last.
RATINGS = [(1, 10 + i, 1 + i % 5, 100 - i) for i in range(8)]
RATINGS += [(2, 10 + i, 1 + i % 5, 50) for i in range(8)] + [(3, 10 + i, 5, 200 + i) for i in range(4)]
FILES = {
    "users.dat": "1::F::18::10::48067\n2::M::25::16::02138-1234\n3::M::56::1::\n",
    "movies.dat": "".join(f"{10 + i}::Film {i} (1995)::{'Drama|War' if i % 2 else ''}\n" for i in range(8)),
}


def write(folder, ratings=RATINGS, **files):
    folder.mkdir(exist_ok=True)
    text = "".join("::".join(map(str, row)) + "\n" for row in ratings)
    for name, content in {**FILES, "ratings.dat": text, **files}.items():
        (folder / name).write_text(content, encoding="latin-1")
    return folder


def test_the_columns_of_a_small_archive(tmp_path):
    source = write(tmp_path / "ml-1m")
    table = flat(movielens_domains(source, tmp_path, protocol="row"))
    assert table.slice(11, 1).to_pylist() == [
        {
            "user": "2",
            "gender": "M",
            "age": 25.0,
            "occupation": "16",
            "zip": "02138-1234",
            "title": "13",
            "genre": "Drama",
            "domain": "2",
            "click": 1,
            "like": 0,
            "split": "train",
        }
    ]
    assert table["domain"].to_pylist() == ["1"] * 8 + ["2"] * 8 + ["3"] * 4
    assert table["like"].to_pylist()[:6] == [0, 0, 0, 0, 1, 0]
    given, schema = read(movielens_domains, source, protocol="row")
    names = ["user", "gender", "age", "occupation", "zip", "title", "genre", "domain"]
    assert [(f.name, f.role) for f in schema.features] == [
        *((name, "user") for name in names[:5]), *((name, "title") for name in names[5:7]), ("domain", "context"),
    ]  # fmt: skip
    assert schema.scenario.names == ("1", "2")  # those of training rows
    # In the order of the file, with all that the tables say.
    assert given.select([*names, "split"]).to_pylist() == table.select([*names, "split"]).to_pylist()
    for task in ("click", "like"):
        assert given[task].to_pylist() == table[task].to_pylist()
    # Of users and titles, what training rows say: user 3 rates in the last fifth only.
    train = table.filter(pc.equal(table["split"], "train"))
    features = {feature.name: feature for feature in schema.features}
    assert features["user"].vocabulary == ("1", "2")
    assert features["zip"].vocabulary == ("02138-1234", "48067")
    assert (features["age"].mean, features["age"].std) == (21.5, 3.5)
    assert schema.tasks[0].mean == pytest.approx(np.mean(train["click"].to_numpy()))


def test_no_feature_uses_time(tmp_path):
    """Other times change nothing but the split, and in file order nothing at all."""
    other_times = [(*row[:3], 7919 * i % 101) for i, row in enumerate(RATINGS)]
    first, second = write(tmp_path / "first"), write(tmp_path / "second", other_times)
    by_row = [flat(movielens_domains(source, tmp_path, protocol="row")) for source in (first, second)]
    assert by_row[0].equals(by_row[1])
    by_time, by_other_time = (flat(movielens_domains(source, tmp_path, protocol="time")) for source in (first, second))
    assert by_time.drop_columns("split").equals(by_other_time.drop_columns("split"))
    assert not by_time["split"].equals(by_other_time["split"])


def test_no_feature_uses_the_order_of_the_rows(tmp_path):
    order = np.random.default_rng(0).permutation(len(RATINGS))
    sources = write(tmp_path / "first"), write(tmp_path / "second", [RATINGS[i] for i in order])
    table, shuffled = (flat(movielens_domains(source, tmp_path, protocol="row")) for source in sources)
    assert table.drop_columns("split").take(order).equals(shuffled.drop_columns("split"))


def test_a_split_by_time_keeps_ties_in_file_order():
    split = split_rows(10, protocol="time", time=[5, 1, 1, 1, 1, 1, 1, 1, 1, 1])
    assert split.to_pylist() == ["test"] + ["train"] * 8 + ["validation"]


@pytest.mark.parametrize(("rows", "sizes"), [(1, (1, 0, 0)), (11, (9, 1, 1)), (1_000_209, (800_168, 100_021, 100_020))])
@pytest.mark.parametrize("protocol", ["row", "random"])
def test_eight_to_one_to_one(protocol, rows, sizes):
    split = split_rows(rows, protocol=protocol).to_numpy(zero_copy_only=False)
    assert tuple((split == name).sum() for name in ("train", "validation", "test")) == sizes


def test_a_random_split_depends_on_its_seed_only():
    splits = [split_rows(1000, protocol="random", seed=seed) for seed in (0, 0, 1)]
    assert splits[0].equals(splits[1])
    assert not splits[0].equals(splits[2])


def test_look_up_gives_rows_in_the_order_of_the_keys():
    table = pa.table({"id": ["a", "b"], "value": [1, 2]})
    assert look_up(table, "id", pa.array(["b", "x", "a"]))["value"].to_pylist() == [2, None, 1]


def test_a_split_by_time_needs_times():
    with pytest.raises(ValueError, match=r"`time` must have one value a row, shape \(3,\), .*time.shape=\(2,\)"):
        split_rows(3, protocol="time", time=[1, 2])
    with pytest.raises(ValueError, match=r"`time` must have one value a row"):
        split_rows(3, protocol="time")


def test_unknown_protocol(tmp_path):
    with pytest.raises(ValueError, match=r"`protocol` must be one of \['random', 'row', 'time'\]. Did you mean 'time'"):
        movielens_domains(write(tmp_path / "ml-1m"), tmp_path, protocol="times")


@pytest.mark.parametrize(
    "users", ["1::F::18::10::48067\n2::M::25::16::1\n", "1::F::18::1::1\n2::M::25::1::1\n3::M::7::1::1"]
)
def test_a_user_without_a_domain(tmp_path, users):
    message = "Every rating's user must be listed in users.dat with an age of ['1', '18', '25', '35', '45', '50', '56']"
    with pytest.raises(ValueError, match=re.escape(message) + ".*Received: user 3 with age (7|None)"):
        movielens_domains(write(tmp_path / "ml-1m", **{"users.dat": users}), tmp_path)


@pytest.fixture(scope="module")
def million(shared_data, tmp_path_factory):
    return flat(movielens_domains(shared_data(ARCHIVE), tmp_path_factory.mktemp("million")))


def test_the_published_statistics_of_the_three_domains(million):
    """Table 1 of the M3oE paper."""
    counts = million.group_by("domain").aggregate(
        [("user", "count_distinct"), ("title", "count_distinct"), ([], "count_all")]
    )
    rows = {row["domain"]: tuple(row.values())[1:] for row in counts.to_pylist()}
    assert rows == {"1": (1_325, 3_429, 210_747), "2": (2_096, 3_508, 395_556), "3": (2_619, 3_595, 393_906)}
    likes = million.group_by("domain").aggregate([("click", "mean"), ("like", "mean")]).to_pylist()
    assert {row["domain"]: (round(row["click_mean"], 3), round(row["like_mean"], 3)) for row in likes} == {
        "1": (0.552, 0.225),
        "2": (0.563, 0.217),
        "3": (0.600, 0.237),
    }


def test_the_split_by_time_is_at_the_moment_from_which_times_are_trusted(million, shared_data):
    with zipfile.ZipFile(shared_data(ARCHIVE)) as archive:
        lines = archive.read("ml-1m/ratings.dat").decode().splitlines()
    time = np.array([int(line.rpartition("::")[2]) for line in lines])
    split = million["split"].to_numpy()
    assert time[split == "train"].max() == TRUSTED_AFTER < time[split == "validation"].min()
    assert time[split == "validation"].max() <= time[split == "test"].min()
    known = set(pc.unique(million["user"].filter(pc.equal(million["split"], "train"))).to_pylist())
    warm = {
        name: pc.mean(pc.is_in(million["user"].filter(pc.equal(million["split"], name)), pa.array(known))).as_py()
        for name in ("validation", "test")
    }
    assert warm == pytest.approx({"validation": 0.238, "test": 0.807}, abs=1e-3)
