import numpy as np
import pytest

from tfmtr.datasets.groups import random_groups, territory_groups

CENTERS = {"eu": (10, 50), "am": (-100, 40), "as": (110, 35), "af": (20, 0)}


def world(majors=1, minors=3):
    volumes, places = {}, {}
    for c, (name, (longitude, latitude)) in enumerate(CENTERS.items()):
        for i in range(majors + minors):
            volumes[f"{name}{i}"] = 1000 + c if i < majors else 5 + i
            places[f"{name}{i}"] = (longitude + 2 * i, latitude - i)
    return volumes, places


def test_neighbours_stay_together():
    volumes, places = world()
    groups = territory_groups(volumes, places, 4)
    for name in CENTERS:
        assert len({group for territory, group in groups.items() if territory.startswith(name)}) == 1
    assert len(set(groups.values())) == 4


def test_majors_are_spread_over_groups():
    # Three of the four majors lie together: without balance they would share a group.
    volumes = {"a": 100, "b": 90, "c": 80, "d": 70, "e": 1, "f": 1, "g": 1, "h": 1}
    places = {t: (i * 0.5, 50) for i, t in enumerate("abc")} | {"d": (100, 0)}
    places |= {t: (100 + i, 0) for i, t in enumerate("efgh")}
    groups = territory_groups(volumes, places, 2)
    assert sorted(sum(groups[t] == g for t in "abcd") for g in ("group-1", "group-2")) == [2, 2]
    assert sorted(sum(groups[t] == g for t in "efgh") for g in ("group-1", "group-2")) == [2, 2]


def test_the_date_line_is_no_border():
    places = {"FJ": (178, -18), "TO": (-175, -21), "DE": (10, 51), "AT": (14, 48)}
    groups = territory_groups(dict.fromkeys(places, 10), places, 2)
    assert groups["FJ"] == groups["TO"] != groups["DE"] == groups["AT"]


def test_volumes_alone_are_balanced():
    volumes = {f"t{i}": v for i, v in enumerate([100, 60, 50, 50, 40])}
    groups = territory_groups(volumes, None, 3)
    totals = [sum(v for t, v in volumes.items() if groups[t] == g) for g in sorted(set(groups.values()))]
    assert totals == [100, 100, 100]


def test_territory_without_place_joins_the_least_volume():
    volumes, places = world()
    groups = territory_groups({**volumes, "nowhere": 1}, places, 4)
    totals = {g: sum(v for t, v in volumes.items() if groups[t] == g) for g in set(groups.values())}
    assert totals[groups["nowhere"]] == min(totals.values())


def test_groups_do_not_depend_on_the_order():
    volumes, places = world()
    backwards = dict(reversed(volumes.items()))
    assert territory_groups(volumes, places, 3) == territory_groups(backwards, dict(reversed(places.items())), 3)


def test_more_groups_than_territories():
    assert territory_groups({"DE": 1, "FR": 2}, None, 4) == {"DE": "group-2", "FR": "group-1"}


def test_random_groups_are_even_and_seeded():
    names = [f"t{i}" for i in range(10)]
    groups = random_groups(names, 4, seed=0)
    assert sorted(np.unique(list(groups.values()), return_counts=True)[1]) == [2, 2, 3, 3]
    assert groups == random_groups(reversed(names), 4, seed=0) != random_groups(names, 4, seed=1)


@pytest.mark.parametrize(("volumes", "num_groups"), [({}, 2), ({"DE": 1}, 0)])
def test_bad_number_of_groups(volumes, num_groups):
    with pytest.raises(ValueError, match="`num_groups` must be positive and there must be a territory"):
        territory_groups(volumes, None, num_groups)
    with pytest.raises(ValueError, match="`num_groups` must be positive"):
        random_groups(volumes, num_groups, 0)
