import datetime
import zipfile

import duckdb
import pyarrow.parquet as pq
import pytest

from tfmtr.datasets.public import movielens as module
from tfmtr.datasets.public.movielens import movielens

FILES = {
    "ratings.dat": "1::1193::5::978300760\n2::661::3::975768738\n",
    "users.dat": "1::F::1::10::48067\n2::M::56::16::X0072\n",
    "movies.dat": "1193::One Flew Over the Cuckoo's Nest (1975)::Drama\n661::Cité :: II (1995)::Animation|Children's\n",
}


def make_archive(path, files=FILES, prefix="ml-1m/"):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(prefix + name, text.encode("latin-1"))
    return path


def make_folder(path, files=FILES):
    path.mkdir(parents=True)
    for name, text in files.items():
        (path / name).write_bytes(text.encode("latin-1"))
    return path


def test_tables_of_a_small_archive(tmp_path):
    logs = movielens(make_archive(tmp_path / "ml-1m.zip"), tmp_path / "out")
    assert pq.read_table(logs.events).to_pylist() == [
        {"user": "1", "title": "1193", "rating": 5, "time": datetime.datetime(2000, 12, 31, 22, 12, 40)},
        {"user": "2", "title": "661", "rating": 3, "time": datetime.datetime(2000, 12, 2, 14, 52, 18)},
    ]
    assert pq.read_table(logs.users).to_pylist() == [
        {"user": "1", "gender": "F", "age": "1", "occupation": "10", "territory": "4"},
        {"user": "2", "gender": "M", "age": "56", "occupation": "16", "territory": None},
    ]
    assert pq.read_table(logs.titles).to_pylist() == [
        {"title": "1193", "name": "One Flew Over the Cuckoo's Nest (1975)", "genres": ["Drama"]},
        {"title": "661", "name": "Cité :: II (1995)", "genres": ["Animation", "Children's"]},
    ]


@pytest.mark.parametrize("inner", ["", "ml-1m"])
def test_a_folder_equals_the_archive(tmp_path, inner):
    make_folder(tmp_path / "source" / inner)
    from_folder = movielens(tmp_path / "source", tmp_path / "folder")
    from_archive = movielens(make_archive(tmp_path / "ml-1m.zip"), tmp_path / "archive")
    for table in ("events", "users", "titles"):
        assert getattr(from_folder, table).read_bytes() == getattr(from_archive, table).read_bytes()


def test_an_archive_without_inner_folder_and_with_blank_lines(tmp_path):
    files = {**FILES, "ratings.dat": FILES["ratings.dat"].replace("\n", "\r\n") + "\n \n"}
    logs = movielens(make_archive(tmp_path / "flat.zip", files, prefix=""), tmp_path / "out")
    assert pq.read_table(logs.events)["time"].to_pylist()[1] == datetime.datetime(2000, 12, 2, 14, 52, 18)


def test_windows_lie_after_the_trusted_moment(tmp_path):
    calendar = movielens(make_archive(tmp_path / "ml-1m.zip"), tmp_path / "out").calendar
    trusted_after = datetime.datetime.fromtimestamp(975_768_738, datetime.UTC)
    assert calendar.start - trusted_after == datetime.timedelta(seconds=1)
    # Week 0 is left for activity: the first training window starts a week after the trusted moment.
    assert calendar.end - calendar.num_train * calendar.length - trusted_after == datetime.timedelta(weeks=1)
    assert calendar.length == datetime.timedelta(weeks=1)
    assert calendar.num_test == 3


def test_the_published_counts(tmp_path, shared_data):
    logs = movielens(shared_data("movielens-1m/ml-1m-rebuilt.zip"), tmp_path)
    with duckdb.connect() as con:
        for table in ("events", "users", "titles"):
            con.execute(f"CREATE VIEW {table} AS FROM '{getattr(logs, table)}'")
        ratings = con.execute("SELECT count(*) FROM events GROUP BY rating ORDER BY rating").fetchall()
        assert [count for (count,) in ratings] == [56_174, 107_557, 261_197, 348_971, 226_310]
        (early,) = con.execute("SELECT count(*) FROM events WHERE epoch(time) <= 975768738").fetchone()
        assert early == 800_168
        assert con.execute("SELECT count(DISTINCT user), count(*) FROM users").fetchone() == (6_040, 6_040)
        assert con.execute("SELECT count(DISTINCT title), count(*) FROM titles").fetchone() == (3_883, 3_883)
        assert con.execute("SELECT count(*) FROM events JOIN users USING (user)").fetchone() == (1_000_209,)
        assert con.execute("SELECT count(DISTINCT title) FROM events JOIN titles USING (title)").fetchone() == (3_706,)
        regions = dict(con.execute("SELECT territory, count(*) FROM users GROUP BY territory").fetchall())
        assert (min(regions.values()), max(regions.values())) == (306, 1_468)
        assert set(regions) == set(logs.groups)
        assert con.execute("SELECT name FROM titles WHERE title = '1'").fetchone() == ("Toy Story (1995)",)
    assert len(set(logs.groups.values())) == 4


def test_download_checks_the_checksum(tmp_path, monkeypatch):
    archive = make_archive(tmp_path / "published.zip")
    monkeypatch.setattr(module, "URL", archive.as_uri())
    with pytest.raises(ValueError, match=f"must have the published MD5 {module.MD5}.*Received: [0-9a-f]{{32}} in"):
        movielens(None, tmp_path / "out", download=True)
    assert not (tmp_path / "out" / "ml-1m.zip").exists()
    monkeypatch.setattr(module, "MD5", module.hashlib.md5(archive.read_bytes()).hexdigest())
    assert pq.read_metadata(movielens(None, tmp_path / "out", download=True).events).num_rows == 2
    assert (tmp_path / "out" / "ml-1m.zip").read_bytes() == archive.read_bytes()


def test_download_offline(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "URL", (tmp_path / "nowhere.zip").as_uri())
    with pytest.raises(ConnectionError, match=r"nowhere.zip could not be downloaded; check the connection"):
        movielens(None, tmp_path / "out", download=True)


@pytest.mark.parametrize(("source", "download"), [(None, False), ("ml-1m.zip", True)])
def test_source_or_download(tmp_path, source, download):
    with pytest.raises(ValueError, match=r"`source` must be the path .* or None with download=True. Received: source="):
        movielens(source, tmp_path, download=download)


def test_missing_source(tmp_path):
    with pytest.raises(ValueError, match=r"`source` must be ml-1m.zip or a folder; there is no such file. Received:"):
        movielens(tmp_path / "ml-1m.zip", tmp_path / "out")


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.95])
def test_truncated_archive(tmp_path, kept):
    source = make_archive(tmp_path / "ml-1m.zip")
    data = source.read_bytes()
    source.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(ValueError, match=r"`source` must be a complete .zip archive .* its download broke off"):
        movielens(source, tmp_path / "out")


def test_damaged_archive(tmp_path):
    source = make_archive(tmp_path / "ml-1m.zip")
    data = bytearray(source.read_bytes())
    data[50:60] = bytes(10)  # inside the compressed ratings
    source.write_bytes(data)
    with pytest.raises(ValueError, match=r"`source` must be an intact .zip archive; download it again. Received:"):
        movielens(source, tmp_path / "out")


@pytest.mark.parametrize("missing", FILES)
def test_archive_without_a_file(tmp_path, missing):
    source = make_archive(tmp_path / "a.zip", {name: text for name, text in FILES.items() if name != missing})
    with pytest.raises(ValueError, match=rf"it lacks \['{missing}'\]. Received: source=.*a.zip with \[") as error:
        movielens(source, tmp_path / "out")
    assert all(f"'{name}'" in str(error.value).split("Received:")[1] for name in FILES if name != missing)


@pytest.mark.parametrize(
    "line",
    ["1::661::3", "1::661::3::978300760::x", "1::661::6::978300760", "1::661::3.5::978300760", "a::661::3::978300760"],
)
def test_malformed_rating(tmp_path, line):
    files = {**FILES, "ratings.dat": "1::1193::5::978300760\n\n" + line + "\n2::661::3::975768738\n"}
    expected = rf"Every line of ratings.dat must be UserID::MovieID::Rating::Timestamp; .* line 3 of .*: '{line}'$"
    with pytest.raises(ValueError, match=expected):
        movielens(make_archive(tmp_path / "ml-1m.zip", files), tmp_path / "out")


def test_empty_ratings(tmp_path):
    source = make_archive(tmp_path / "ml-1m.zip", {**FILES, "ratings.dat": "\n"})
    with pytest.raises(ValueError, match=r"ratings.dat must have at least one line UserID::.*Received: an empty file"):
        movielens(source, tmp_path / "out")
