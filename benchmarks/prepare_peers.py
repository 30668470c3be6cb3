"""The examples of one log by one library in a process of its own, for `prepare.py`.

    python benchmarks/prepare_peers.py '{"library": "polars", "folder": "path/to/log", "out": "examples.parquet"}'

A function takes the `Logs` and a path and writes the examples there: `COLUMNS`, in any order. pandas and Polars do what
`tfmtr/datasets/discovery.py` does, step by step and all buckets at once, as one writes it in these libraries; neither
has MD5, so that both call `hashlib` for each key. Prints a line of JSON: seconds, those of hashing, the peak of memory.
"""

import contextlib
import dataclasses
import hashlib
import inspect
import json
import pickle
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tfmtr.datasets.discovery import SPARE_DRAWS, as_utc, plan_windows
from tfmtr.datasets.names import inside
from tfmtr.datasets.prepare import TEST_FRACTION, VALIDATION_FRACTION, open_engine, prepare
from tfmtr.datasets.preparing import buckets
from tfmtr.datasets.preparing.checked_log import check_log
from tfmtr.datasets.preparing.drawn_examples import ACTIVITY, draw_examples
from tfmtr.datasets.preparing.offered_titles import offer_titles
from tfmtr.datasets.preparing.placed_windows import place_windows, settle_users
from tfmtr.datasets.preparing.survey import survey_buckets
from tfmtr.datasets.preparing.work import Work

COLUMNS = ("user", "title", "territory", "bucket", "split", "sampling", "window", "is_positive", "event")
OPTIONS = {name: p.default for name, p in inspect.signature(prepare).parameters.items() if p.default is not p.empty}
OPTIONS |= {"test_fraction": TEST_FRACTION, "validation_fraction": VALIDATION_FRACTION}
OPTIONS |= {"activity_lookback": ACTIVITY}  # windows here are shorter
OPTIONS["counters"] = ()
COHORT, STRATUM = ["bucket", "split", "sampling", "cohort"], ["bucket", "split", "sampling", "window"]
COUNTERS = ("title", "title,territory", "user", "user,genres")
hash_seconds = 0.0


def whole_prepare(logs, out, **options):
    """All of `tfmtr prepare`, stores included."""
    prepare(logs, out, progress=False, **options)


def counted_prepare(logs, out):
    """The same with counters."""
    prepare(logs, out, progress=False, counters=COUNTERS)


def tfmtr(logs, out, **options):
    """The part of `tfmtr prepare` that the peers do, too."""
    logs = dataclasses.replace(logs, user_vectors=None, title_vectors=None, user_history=False)
    options = {**OPTIONS, **options}
    with (
        tempfile.TemporaryDirectory(dir=out.parent) as folder,
        contextlib.closing(open_engine(Path(folder, "spill"), options)) as engine,
    ):
        result = Path(folder, "result")
        result.mkdir()
        work = Work(engine, logs, result, Path(folder, "work"), options, lambda text, total=None: None)
        log = check_log(work)
        windows = place_windows(work, log).windows
        log = settle_users(work, log, windows)
        parts = buckets.cut_buckets(work, log, windows, buckets.plan_passes(work, log.num_events))
        catalogue = offer_titles(work, log, windows, survey_buckets(work, log, parts))
        for number in range(len(parts.passes)):
            rows = draw_examples(work, log, parts, catalogue, number).rows
            engine.save(rows.rename(event=inside("event")).select(*COLUMNS), out / f"{number}.parquet")


def spark(logs, out):
    """The same on Spark."""
    tfmtr(logs, out, engine="spark", spark_master="local[2]")


def whole_spark(logs, out):
    """All of `tfmtr prepare` on Spark."""
    whole_prepare(logs, out, engine="spark", spark_master="local[2]")


def md5(keys):
    """Hex digests of an iterable of text."""
    global hash_seconds
    started = time.perf_counter()
    found = [hashlib.md5(key.encode()).hexdigest() for key in keys]
    hash_seconds += time.perf_counter() - started
    return found


def digits(digests, start):
    """Seven hex digits of each digest as numbers."""
    global hash_seconds
    started = time.perf_counter()
    found = np.fromiter((int(digest[start : start + 7], 16) for digest in digests), "int64", len(digests))
    hash_seconds += time.perf_counter() - started
    return found


def below(digests, fraction):
    """Whether digests fall into the first `fraction` of all digests."""
    bound = "g" if fraction >= 1 else f"{int(fraction * 16**8):08x}"
    return np.fromiter((digest[:8] < bound for digest in digests), bool, len(digests))


def draw_user(users):
    """`{column: values}` of what is drawn for each user."""

    def digest(purpose):
        return md5(f"{OPTIONS['seed']}|{purpose}|{user}" for user in users)

    held_out, test = digest("split"), OPTIONS["test_fraction"]
    is_kept = below(held_out, test + OPTIONS["validation_fraction"])
    split = np.where(below(held_out, test), "test", np.where(is_kept, "validation", "train"))
    is_random = (split != "train") | below(digest("random"), OPTIONS["random_fraction"])
    is_active = below(digest("active"), OPTIONS["active_fraction"])
    sampling = np.where(is_random, "random", np.where(is_active, "active", "none"))
    return {"bucket_key": digits(digest("bucket"), 0), "split": split, "sampling": sampling}


def plan(logs, first, last, num_events):
    """`(windows, starts and last end, number of buckets)`."""
    windows = plan_windows(logs.calendar, as_utc(first), as_utc(last))
    edges = np.array([*(window.start for window in windows), windows[-1].end], "datetime64[us]")
    return windows, edges, max(1, -(-num_events // buckets.BUCKET_EVENTS))


def number(times, edges, windows):
    """Window of each time."""
    return np.searchsorted(edges, times, side="right") - 1 + windows[0].number


def pandas(logs, out):
    """By pandas."""
    import pandas as pd

    events = pd.read_parquet(logs.events, columns=["user", "title", "time"])
    users = pd.read_parquet(logs.users, columns=["user", "territory"])
    offers = pd.read_parquet(logs.availability)
    for table, columns in ((events, ["time"]), (offers, ["start", "end"])):
        for column in columns:
            table[column] = table[column].dt.tz_localize(None) if table[column].dt.tz else table[column]
    windows, edges, num_buckets = plan(logs, events.time.min(), events.time.max(), len(events))
    users = users.assign(**draw_user(users.user))
    users["bucket"] = users.pop("bucket_key") % num_buckets
    events["window"] = number(events.time.to_numpy("datetime64[us]"), edges, windows)
    events = events[(events.window <= windows[-1].number) & events.user.isin(users.user)]

    spans = pd.DataFrame({"window": [w.number for w in windows], "opening": [w.start for w in windows]})
    titles = offers.merge(spans, how="cross")
    is_open = titles.start.isna() | (titles.start <= titles.opening)
    titles = titles[is_open & (titles.end.isna() | (titles.end > titles.opening))]
    titles = titles[["window", "territory", "title"]].drop_duplicates().sort_values(["window", "territory", "title"])
    titles["title_position"] = titles.groupby(["window", "territory"]).cumcount()

    pool = users[users.sampling == "active"]
    latest = events[events.user.isin(pool.user)].groupby(["user", "window"], as_index=False).time.max()
    spans["since"] = spans.opening - OPTIONS["activity_lookback"]
    active = latest.rename(columns={"window": "seen_in"}).merge(spans, how="cross")
    active = active[(active.seen_in < active.window) & (active.time >= active.since)]
    active = active[["user", "window"]].drop_duplicates().rename(columns={"window": "cohort"})
    active["cohort"] = active.cohort.astype(str)
    members = pd.concat([users[users.sampling == "random"].assign(cohort="all"), pool.merge(active, on="user")])
    members = members.sort_values([*COHORT, "user"])
    members["user_position"] = members.groupby(COHORT).cumcount()

    events = events.sort_values(["user", "title", "time"])
    earlier = events.groupby(["user", "title"]).time.shift()
    found = events[earlier.isna() | (earlier < events.time - OPTIONS["discovery_lookback"])]

    def placed(rows):
        rows = rows[rows.window >= windows[0].number].drop_duplicates(["user", "title", "window"])
        rows = rows.merge(members.drop(columns="user_position"), on="user")
        is_served = (rows.cohort == "all") | (rows.cohort == rows.window.astype(str))
        rows = rows[is_served & ((rows.split != "test") | (rows.window > 0))]
        return rows.merge(titles.drop(columns="title_position"), on=["window", "territory", "title"])

    positives, taken = placed(found), placed(events)

    sizes = titles.groupby(["window", "territory"]).size().rename("num_titles").reset_index()
    homes = members.groupby([*COHORT, "territory"]).size().rename("users").reset_index()
    counts = members.groupby(COHORT).size().rename("num_users").reset_index()
    strata = positives.groupby([*STRATUM, "cohort"]).size().rename("positives").reset_index()
    strata["wanted"] = np.floor(strata.positives * OPTIONS["alpha"] + 0.5).astype("int64")
    strata = strata.merge(taken.groupby(STRATUM).size().rename("taken").reset_index(), on=STRATUM)
    reach = strata.merge(homes, on=COHORT).merge(sizes, on=["window", "territory"])
    reach["pairs"] = reach.users * reach.num_titles
    reach = reach.groupby([*STRATUM, "cohort", "taken", "wanted"], as_index=False)[["pairs", "users"]].sum()
    strata = reach.merge(counts, on=COHORT)
    pairs, wanted, most = strata.pairs - strata.taken, strata.wanted, np.minimum(strata.wanted, strata.pairs) * 8
    draws = np.where(wanted * 8 <= pairs, wanted * 5 // 4, np.where(wanted * 2 <= pairs, wanted * 2, most))
    strata["draws"] = (draws + SPARE_DRAWS) * strata.num_users // strata.users
    drawn = strata.loc[strata.index.repeat(strata.draws), [*STRATUM, "cohort", "wanted", "num_users"]]
    drawn["draw"] = drawn.groupby(level=0).cumcount()
    keys = md5(
        f"{OPTIONS['seed']}|negative|{'|'.join(map(str, key))}"
        for key in drawn[[*STRATUM, "draw"]].itertuples(index=False, name=None)
    )
    drawn["user_position"] = digits(keys, 0) % drawn.pop("num_users").to_numpy()
    drawn["title_digits"] = digits(keys, 7)
    drawn = drawn.merge(members, on=[*COHORT, "user_position"]).merge(sizes, on=["window", "territory"])
    drawn["title_position"] = drawn.pop("title_digits") % drawn.pop("num_titles")
    drawn = drawn.merge(titles, on=["window", "territory", "title_position"])
    drawn = drawn.sort_values("draw").drop_duplicates(["user", "title", "window", *STRATUM])
    drawn = drawn.merge(taken[["user", "title", "window"]], on=["user", "title", "window"], how="left", indicator=True)
    drawn = drawn[drawn.pop("_merge") == "left_only"].sort_values("draw")
    negatives = drawn[drawn.groupby(STRATUM).cumcount() < drawn.wanted]
    examples = pd.concat(
        [positives.assign(is_positive=True, event=1.0), negatives.assign(is_positive=False, event=0.0)]
    )
    examples[list(COLUMNS)].to_parquet(out, index=False)


def polars(logs, out):
    """By Polars."""
    import polars as pl

    def naive(table, *columns):
        return table.with_columns(pl.col(name).dt.replace_time_zone(None).dt.cast_time_unit("us") for name in columns)

    events = naive(pl.read_parquet(logs.events, columns=["user", "title", "time"]), "time")
    users = pl.read_parquet(logs.users, columns=["user", "territory"])
    offers = naive(pl.read_parquet(logs.availability), "start", "end")
    windows, edges, num_buckets = plan(logs, events["time"].min(), events["time"].max(), len(events))
    users = users.with_columns(**{name: pl.Series(values) for name, values in draw_user(users["user"]).items()})
    users = users.with_columns(bucket=pl.col("bucket_key") % num_buckets).drop("bucket_key")
    events = events.with_columns(window=pl.Series(number(events["time"].to_numpy(), edges, windows)))
    events = events.filter(pl.col("window") <= windows[-1].number).join(users.select("user"), on="user", how="semi")

    spans = pl.DataFrame({"window": [w.number for w in windows], "opening": [w.start for w in windows]})
    titles = offers.join(spans, how="cross").filter(
        pl.col("start").is_null() | (pl.col("start") <= pl.col("opening")),
        pl.col("end").is_null() | (pl.col("end") > pl.col("opening")),
    )
    titles = titles.select("window", "territory", "title").unique().sort("window", "territory", "title")
    titles = titles.with_columns(title_position=pl.int_range(pl.len()).over("window", "territory"))

    pool = users.filter(pl.col("sampling") == "active")
    latest = events.join(pool, on="user", how="semi").group_by("user", "window").agg(pl.col("time").max())
    spans = spans.with_columns(since=pl.col("opening") - OPTIONS["activity_lookback"])
    active = latest.rename({"window": "seen_in"}).join(spans, how="cross")
    active = active.filter(pl.col("seen_in") < pl.col("window"), pl.col("time") >= pl.col("since"))
    active = active.select("user", cohort=pl.col("window").cast(pl.String)).unique()
    random = users.filter(pl.col("sampling") == "random").with_columns(cohort=pl.lit("all"))
    members = pl.concat([random, pool.join(active, on="user").select(random.columns)]).sort(*COHORT, "user")
    members = members.with_columns(user_position=pl.int_range(pl.len()).over(COHORT))

    events = events.sort("user", "title", "time")
    earlier = pl.col("time").shift().over("user", "title")
    found = events.filter(earlier.is_null() | (earlier < pl.col("time") - OPTIONS["discovery_lookback"]))

    def placed(rows):
        rows = rows.filter(pl.col("window") >= windows[0].number)
        rows = rows.unique(["user", "title", "window"], keep="first", maintain_order=True)
        rows = rows.join(members.drop("user_position"), on="user").filter(
            (pl.col("cohort") == "all") | (pl.col("cohort") == pl.col("window").cast(pl.String)),
            (pl.col("split") != "test") | (pl.col("window") > 0),
        )
        return rows.join(titles, on=["window", "territory", "title"], how="semi")

    positives, taken = placed(found), placed(events)

    sizes = titles.group_by("window", "territory").agg(num_titles=pl.len().cast(pl.Int64))
    homes = members.group_by(*COHORT, "territory").agg(users=pl.len().cast(pl.Int64))
    counts = members.group_by(COHORT).agg(num_users=pl.len().cast(pl.Int64))
    strata = positives.group_by(*STRATUM, "cohort").agg(positives=pl.len().cast(pl.Int64))
    strata = strata.with_columns(wanted=(pl.col("positives") * OPTIONS["alpha"] + 0.5).floor().cast(pl.Int64))
    strata = strata.join(taken.group_by(STRATUM).agg(taken=pl.len().cast(pl.Int64)), on=STRATUM)
    reach = strata.join(homes, on=COHORT).join(sizes, on=["window", "territory"])
    reach = reach.group_by(*STRATUM, "cohort", "taken", "wanted").agg(
        total=(pl.col("users") * pl.col("num_titles")).sum(), users=pl.col("users").sum()
    )
    pairs, wanted = pl.col("total") - pl.col("taken"), pl.col("wanted")
    draws = pl.when(wanted * 8 <= pairs).then(wanted * 5 // 4).when(wanted * 2 <= pairs).then(wanted * 2)
    draws = (
        (draws.otherwise(pl.min_horizontal(wanted, "total") * 8) + SPARE_DRAWS) * pl.col("num_users") // pl.col("users")
    )
    drawn = reach.join(counts, on=COHORT).with_columns(draw=pl.int_ranges(draws)).explode("draw")
    key = pl.concat_str(pl.lit(f"{OPTIONS['seed']}|negative"), *STRATUM, "draw", separator="|")
    keys = md5(drawn.select(key).to_series())
    drawn = drawn.select(*STRATUM, "cohort", "wanted", "num_users", "draw").with_columns(
        user_position=pl.Series(digits(keys, 0)) % pl.col("num_users"), title_digits=pl.Series(digits(keys, 7))
    )
    drawn = drawn.join(members, on=[*COHORT, "user_position"]).join(sizes, on=["window", "territory"])
    drawn = drawn.with_columns(title_position=pl.col("title_digits") % pl.col("num_titles"))
    drawn = drawn.join(titles, on=["window", "territory", "title_position"])
    drawn = drawn.group_by("user", "title", "territory", *STRATUM, "wanted").agg(pl.col("draw").min())
    drawn = drawn.join(taken, on=["user", "title", "window"], how="anti").sort("draw")
    negatives = drawn.filter(pl.int_range(pl.len()).over(STRATUM) < pl.col("wanted"))
    examples = [
        positives.with_columns(is_positive=pl.lit(True), event=pl.lit(1.0)),
        negatives.with_columns(is_positive=pl.lit(False), event=pl.lit(0.0)),
    ]
    pl.concat([rows.select(COLUMNS) for rows in examples]).write_parquet(out)


def peak_mebibytes():
    """Peak resident memory of this process and of the one that it started, Spark's; Linux only.

    Not by `resource.getrusage`, whose peak begins with the memory of the process that started this one.
    """
    children = {pid for file in Path("/proc/self/task").glob("*/children") for pid in file.read_text().split()}
    status = [Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines() for pid in ("self", *children)]
    return sum(int(line.split()[1]) for lines in status for line in lines if line.startswith("VmHWM")) / 1024


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    functions = {f.__name__: f for f in (whole_prepare, counted_prepare, tfmtr, whole_spark, spark, pandas, polars)}
    log = pickle.loads(Path(asked["folder"], "logs.pickle").read_bytes())
    peak = []
    if asked["library"].endswith("spark"):  # Spark's process is gone once the engine is closed
        from tfmtr.datasets.engines.spark import Spark

        close = Spark.close
        Spark.close = lambda engine: (peak.append(peak_mebibytes()), close(engine))
    started = time.perf_counter()
    functions[asked["library"]](log, Path(asked["out"]))
    found = {"seconds": time.perf_counter() - started, "hash_seconds": hash_seconds}
    print(json.dumps({**found, "peak_mebibytes": max([*peak, peak_mebibytes()])}))
