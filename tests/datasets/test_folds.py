"""Folds: every user is a test user once."""

import hashlib

import pandas as pd
import pytest
from helpers.base_log import base, examples, prepared

FOLDS = 3


@pytest.fixture(scope="module")
def folds(tmp_path_factory):
    """The base log and its folds."""
    tables, folder = base(), tmp_path_factory.mktemp("folds")
    options = [{"fold": f"{number}/{FOLDS}"} for number in range(1, FOLDS + 1)]
    return tables, [prepared(folder / f"{i}", *tables, options=some) for i, some in enumerate(options)]


def splits(data):
    """`{user: split}` of the users who had something."""
    events = pd.read_parquet(data.path / "events.parquet")
    return events.groupby("user").split.first()


def test_test_users_are_disjoint_and_together_all(folds):
    (events, _, _), data = folds
    tests = [set(splits(fold)[lambda s: s == "test"].index) for fold in data]
    assert sum(map(len, tests)) == len(set.union(*tests)) == events[events.click == 1].user.nunique()
    assert min(map(len, tests)) > 80


def test_fold_i_is_the_i_th_part_of_the_hash(folds):
    _, data = folds
    for number, fold in enumerate(data):
        users = splits(fold)
        place = users.index.map(lambda user: int(hashlib.md5(f"0|split|{user}".encode()).hexdigest()[:8], 16) / 16**8)
        is_test = (place >= number / FOLDS) & (place < (number + 1) / FOLDS)
        assert ((users == "test") == is_test).all()
        assert 0.05 < (users == "validation").mean() < 0.15  # of all users, though none of the fold
        assert fold.report["options"]["fold"] == f"{number + 1}/{FOLDS}"
        assert fold.report["options"]["test_fraction"] is None
        files = fold.examples("test", windows=[1])
        tested = set(pd.concat([pd.read_parquet(file, columns=["user"]) for file in files]).user)
        assert tested <= set(users[is_test].index)


def test_no_fold_is_as_before(tmp_path):
    tables = base()
    default = prepared(tmp_path / "default", *tables)
    given = prepared(tmp_path / "given", *tables, options={"test_fraction": 0.3, "validation_fraction": 0.1})
    assert default.report["fingerprint"] == given.report["fingerprint"]
    assert {name: default.report["options"][name] for name in ("test_fraction", "validation_fraction", "fold")} == {
        "test_fraction": 0.3, "validation_fraction": 0.1, "fold": None,
    }  # fmt: skip
    place = {user: int(hashlib.md5(f"0|split|{user}".encode()).hexdigest()[:8], 16) / 16**8 for user in tables[1].user}
    for user, split in splits(default).items():
        assert split == ("test" if place[user] < 0.3 else "validation" if place[user] < 0.4 else "train")
    assert len(examples(default)) == 2058


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(({"fold": fold}, "`fold` must be i/n with at least 2 folds.* Received: ")
          for fold in ("0/5", "6/5", "1/1", "-1/5", "2", "a/b", "1/2/3", (0, 5), (1, 1), 3)),
        ({"fold": "1/5", "test_fraction": 0.3}, "`test_fraction` must be left out where `fold` says"),
        ({"fold": (1, 2), "validation_fraction": 0.5}, "`validation_fraction` must leave users for training beside"),
    ],
)  # fmt: skip
def test_folds_that_are_none(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        prepared(tmp_path, *base(users=20), options=options)
