import datetime
import importlib

import pyarrow as pa
import pyarrow.parquet as pq


def test_a_user_s_market_is_the_one_they_rated_most_in_and_of_several_the_first_by_name(tmp_path):
    """Not the one that happens to be read first, or the same ratings would be other data each time."""
    rows = [("a", "uk"), ("a", "ca"), ("b", "de"), ("b", "uk"), ("b", "uk"), ("c", "in"), ("c", "fr"), ("c", "ca")]
    users, markets = map(list, zip(*rows, strict=True))
    day = datetime.date(2019, 1, 1)
    columns = {"userId": users, "market": markets, "itemId": ["t"] * 8, "rate": [5.0] * 8, "date": [day] * 8}
    pq.write_table(pa.table(columns), tmp_path / "ratings.parquet")
    files = importlib.import_module("xmarket_tables").write_tables(tmp_path / "ratings.parquet", tmp_path / "out")
    assert pq.read_table(files["users"]).to_pydict() == {"uid": ["a", "b", "c"], "market": ["ca", "uk", "ca"]}
