import hashlib

import ibis
import pandas as pd
import pytest

from tfmtr.datasets.sampling import digest, draw, is_below

USERS = [f"u{i}" for i in range(2_000)]


@pytest.fixture(scope="module")
def users():
    return ibis.memtable(pd.DataFrame({"user": USERS, "window": 3}))


@pytest.fixture(scope="module")
def con():
    return ibis.duckdb.connect()


def oracle(seed, purpose, *keys):
    return hashlib.md5("|".join([str(seed), purpose, *map(str, keys)]).encode()).hexdigest()


def test_digest_is_md5_of_the_joined_keys(con, users):
    found = con.execute(users.select("user", key=digest(7, "split", users.user, users.window)))
    assert dict(zip(found.user, found.key, strict=True)) == {u: oracle(7, "split", u, 3) for u in USERS}


@pytest.mark.parametrize("fraction", [0.0, 0.25, 0.9, 1.0])
def test_is_below_keeps_the_fraction(con, users, fraction):
    kept = con.execute(is_below(digest(0, "x", users.user), fraction).cast("int").sum())
    expected = sum(int(oracle(0, "x", u), 16) < fraction * 16**32 for u in USERS)
    assert kept == expected
    assert abs(kept - fraction * len(USERS)) < 80


def test_draws_are_the_digits_and_independent(con, users):
    key = digest(1, "draw", users.user)
    found = con.execute(users.select("user", a=draw(key, 10), b=draw(key, 10, skip=7)))
    for user, a, b in found.head(50).itertuples(index=False):
        text = oracle(1, "draw", user)
        assert (a, b) == (int(text[:7], 16) % 10, int(text[7:14], 16) % 10)
    assert found.groupby(["a", "b"]).size().between(4, 45).sum() == 100


def test_seeds_and_purposes_differ(con, users):
    keys = [digest(0, "a", users.user), digest(1, "a", users.user), digest(0, "b", users.user)]
    found = con.execute(users.select(**{f"k{i}": key for i, key in enumerate(keys)}))
    assert len(set(found.to_numpy().ravel())) == 3 * len(USERS)
