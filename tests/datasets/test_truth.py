import itertools
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.metrics import average_precision_score

from tfmtr.datasets.groups import territory_groups
from tfmtr.datasets.simulator import simulator
from tfmtr.datasets.truth import Truth

PAGE = Path(__file__).parents[2] / "docs" / "simulator.md"
DAYS, NUM_USERS, NUM_TITLES = 20, 8_000, 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("truth")


@pytest.fixture(scope="module")
def logs(folder):
    tiny = {"num_users": NUM_USERS, "num_titles": NUM_TITLES, "num_territories": 4, "days": DAYS}
    return simulator(folder, **tiny, impressions=True)


@pytest.fixture(scope="module")
def truth(logs, folder):
    return Truth(folder)


@pytest.fixture(scope="module")
def log(logs):
    log = pd.read_parquet(logs.events)
    log["day"] = (log.time - pd.Timestamp("2025-01-01")).dt.days
    return log


@pytest.fixture(scope="module")
def pairs(logs):
    """All users with all titles."""
    users, titles = (pd.read_parquet(path)[name] for path, name in ((logs.users, "user"), (logs.titles, "title")))
    return pd.DataFrame(itertools.product(users, titles), columns=["user", "title"])


def has_row(pairs, rows):
    """Whether each pair is in the rows, float."""
    keys = pd.MultiIndex.from_frame(pairs[["user", "title"]])
    return keys.isin(pd.MultiIndex.from_frame(rows[["user", "title"]])).astype(float)


def assert_calibrated(probability, label, num_bins=10):
    """In each bin of the probability there are as many ones as expected, by chi-square; bins expect equally many."""
    assert not label[probability == 0].any()
    order = np.argsort(probability)
    cumulative = probability[order].cumsum()
    ends = np.searchsorted(cumulative, np.linspace(0, cumulative[-1], num_bins + 1)[1:-1])
    expected, found = (
        np.array([part.sum() for part in np.split(values[order], ends)]) for values in (probability, label)
    )
    assert expected.min() > 10
    chi_square = ((found - expected) ** 2 / expected).sum()
    assert chi_square < num_bins + 4 * np.sqrt(2 * num_bins)


@pytest.mark.parametrize("day", [0, 10, 19])
def test_propensity_is_the_frequency_of_a_stream(truth, log, pairs, day):
    streams = log[(log.day == day) & (log.streamed == 1)]
    assert_calibrated(truth.propensity(pairs.user, pairs.title, day), has_row(pairs, streams))


@pytest.mark.parametrize("lookback", [3, 30])
def test_propensity_of_a_discovery(truth, log, pairs, lookback):
    streams = log[log.streamed == 1]
    earlier = has_row(pairs, streams[(streams.day < 15) & (streams.day >= 15 - lookback)])
    label = has_row(pairs, streams[streams.day == 15]) * (1 - earlier)
    probability = truth.propensity(pairs.user, pairs.title, 15, lookback=lookback)
    assert_calibrated(probability, label)
    assert probability.sum() < 0.98 * truth.propensity(pairs.user, pairs.title, 15).sum()


def test_exposure_is_the_expected_number_of_showings(truth, log, pairs):
    rows = log[log.day == 12]
    shown = rows.groupby(["user", "title"]).size().reindex(pd.MultiIndex.from_frame(pairs), fill_value=0).to_numpy()
    exposure = truth.exposure(pairs.user, pairs.title, 12)
    assert not shown[exposure == 0].any()
    order = np.argsort(exposure)[np.sum(exposure == 0) :]
    for part in np.array_split(order, 10)[3:]:
        assert abs(shown[part].sum() - exposure[part].sum()) < 4.5 * np.sqrt(exposure[part].sum())


def test_relevance_is_the_share_of_showings_that_are_streamed(truth, log):
    probability = truth.relevance(log.user, log.title)
    assert_calibrated(probability, log.streamed.to_numpy().astype(float))
    assert 0.05 < log.streamed.mean() < 0.4


def test_propensity_ranks_best(truth, log, pairs):
    label = has_row(pairs, log[(log.day == 19) & (log.streamed == 1)])
    propensity = truth.propensity(pairs.user, pairs.title, 19)
    others = [
        truth.relevance(pairs.user, pairs.title),
        truth.exposure(pairs.user, pairs.title, 19),
        log[log.streamed == 1].groupby("title").size().reindex(pairs.title).fillna(0),
        propensity * np.exp(np.random.default_rng(0).normal(0, 1, len(pairs))),
    ]
    best = average_precision_score(label, propensity)
    assert all(best > 1.1 * average_precision_score(label, scores) for scores in others)


def test_ids_may_come_in_any_order_and_kind_with_a_day_each(truth):
    users, titles = ["u00007999", "u00000000", "u00001234"], ["t00000011", "t00000000", "t00000000"]
    single = [truth.propensity([u], [t], day)[0] for u, t, day in zip(users, titles, (3, 19, 7), strict=True)]
    assert np.unique(single).size == 3
    for kind in (list, np.array, pa.array, pd.Series, lambda ids: pa.chunked_array([ids[:1], ids[1:]])):
        np.testing.assert_array_equal(truth.propensity(kind(users), kind(titles), [3, 19, 7]), single)
    assert truth.propensity([], [], 3).shape == (0,)


def test_pairs_are_computed_block_by_block(truth, pairs, monkeypatch):
    first = pairs.head(1_000)
    whole = truth.propensity(first.user, first.title, 7, lookback=3)
    monkeypatch.setattr("tfmtr.datasets.truth.BLOCK", 300)
    np.testing.assert_array_equal(truth.propensity(first.user, first.title, 7, lookback=3), whole)


def test_groups_by_geography_and_by_culture(tmp_path):
    logs = simulator(tmp_path, num_users=10, num_titles=10, num_territories=60, days=18)
    truth = Truth(tmp_path)
    assert set(truth.continents) == set(truth.cultures) == set(logs.neighbours)
    assert all(name.startswith(continent) for name, continent in truth.continents.items())
    assert len(set(truth.cultures.values())) == len(set(truth.continents.values())) == 4
    # The groups that `prepare` makes from the map are near to the continents, and are not the cultures.
    sizes = dict(zip(truth.territories["territory"].to_pylist(), truth.territories["share"].to_pylist(), strict=True))
    groups = pd.Series(territory_groups(sizes, logs.neighbours, 4))
    for other, (least, most) in {"continents": (0.6, 1.0), "cultures": (0.4, 0.8)}.items():
        agreement = pd.crosstab(groups, pd.Series(getattr(truth, other))[groups.index]).max(axis=1).sum() / 60
        assert least < agreement <= most, other


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["u00008000"], ["t00000000"], 0), "`users` must be ids of the log. Received: 1 others, first .'u00008000'"),
        ((["7", None], ["t00000000"], 0), "`users` must be ids of the log. Received: 2 others, first .'7', None"),
        ((["u00000000"], ["t00000012"], 0), "`titles` must be ids of the log. Received: 1 others"),
        ((["u00000000"], ["t00000000"], 20), "`day` must be from 0 to 19. Received: 20"),
        ((["u00000000"], ["t00000000"], -1), "`day` must be from 0 to 19. Received: -1"),
    ],
)
def test_unknown_ids_and_days(truth, arguments, message):
    with pytest.raises(ValueError, match=message):
        truth.propensity(*arguments)


def test_a_folder_without_truth(tmp_path):
    with pytest.raises(ValueError, match="`out` must be a folder that `simulator` wrote"):
        Truth(tmp_path)


def test_the_page_s_example_prints_how_well_the_truth_ranks(tmp_path, monkeypatch, capsys):
    page = PAGE.read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(block, {})
    best, prevalence = map(float, re.findall(r"0\.\d+", capsys.readouterr().out))
    assert prevalence == pytest.approx(1 / 11, abs=0.01)  # ten negatives a positive
    assert 5 * prevalence < best < 1
