import duckdb

from studies.simulator import study as pipeline


def figures(rows):
    """The pipeline's figures of a log given as rows (user, title, territory, day of 2025)."""
    values = ", ".join(f"('{u}', '{t}', '{c}', TIMESTAMP '2025-01-01' + INTERVAL {day} DAY)" for u, t, c, day in rows)
    names = 'AS rows("user", title, territory, "time")'
    return dict(
        zip(
            pipeline.STATISTICS,
            pipeline.statistics(f"CREATE TABLE log AS FROM (VALUES {values}) {names}"),
            strict=True,
        )
    )


def test_figures_of_a_log_by_hand():
    # Title a: 20 events in DE and 5 in FR; b: 12 and 8; c: one. User 0 has two events a day for 23 days.
    rows = [("u0", "a", "DE", day) for day in range(20)] + [("u1", "a", "FR", day) for day in range(5)]
    rows += [("u0", "b", "DE", day) for day in range(11, 23)] + [("u2", "b", "FR", day) for day in range(8)]
    rows += [("u3", "c", "DE", 40), ("u3", "c", "DE", 80)]
    found = figures(rows)
    assert found["positives"] == "47"
    assert found["users with a positive"] == "4"
    assert found["positives, largest to 16th territory"] == "n/a"
    assert found["positives of the largest territory"] == f"{34 / 47:.2f}"
    assert found["positives of the top 1 % of titles"] == f"{25 / 47:.2f}"
    assert found["Gini of positives over titles"] == f"{(2 * (2 * 1 + 20 * 2 + 25 * 3) / 47 - 4) / 3:.2f}"
    assert found["positives of the top 10 % of users"] == f"{32 / 47:.2f}"
    assert found["active in the last 4 weeks, of users with a positive"] == "0.25"
    assert found["local titles (80 % in one territory), of those with 20"] == "0.50"
    assert found["titles in two territories or more"] == f"{2 / 3:.2f}"
    assert found["positives that are discoveries (30 days)"] == f"{6 / 47:.2f}"


def test_the_sixteenth_territory():
    rows = [(f"u{i}", "a", f"T{i}", day) for i in range(20) for day in range(100 // (i + 1))]
    assert figures(rows)["positives, largest to 16th territory"] == f"{100 / 6:.0f}"


def test_table_of_the_simulator_and_of_real_logs(shared_data):
    paths = {
        "Online Retail": shared_data("online-retail/online_retail.parquet"),
        "XMarket": shared_data("xmarket-electronics/ratings_5core.parquet"),
    }
    lines = pipeline.main(paths, num_users=2_000, num_territories=20).splitlines()
    assert lines[0] == "|  | paper | Online Retail | XMarket | simulator |"
    cells = {line.split(" | ")[0][2:]: line[:-2].split(" | ")[1:] for line in lines[2:]}
    assert list(cells) == list(pipeline.STATISTICS)
    assert cells["territories"][1:3] == ["37", "7"]
    assert cells["positives"][1] == "396,337"
    with duckdb.connect() as connection:
        query = f"SELECT count(*) FROM '{paths['XMarket']}' WHERE rate >= 4"
        assert cells["positives"][2] == f"{connection.execute(query).fetchone()[0]:,}"


def test_without_paths_there_is_only_the_simulator_whose_titles_are_as_concentrated_as_real_ones():
    lines = pipeline.main({}, num_users=20_000, num_territories=24).splitlines()
    assert lines[0] == "|  | paper | simulator |"
    cells = {line.split(" | ")[0][2:]: line[:-2].split(" | ")[2] for line in lines[2:]}
    assert 0.6 < float(cells["Gini of positives over titles"]) < 0.8
    assert 0.3 < float(cells["positives of the top 5 % of titles"]) < 0.55
