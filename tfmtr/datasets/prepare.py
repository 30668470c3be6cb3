"""`prepare`: a service's log in, labelled examples, feature stores and a schema out."""

import contextlib
import datetime
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tfmtr.checks import check_integer, check_number, check_path
from tfmtr.datasets.column_types import check_pages
from tfmtr.datasets.counters import DAYS, parse_counters, parse_days, parse_prior
from tfmtr.datasets.dataset import Dataset, workplace
from tfmtr.datasets.engines._engine import Engine
from tfmtr.datasets.engines.duckdb import DuckDB
from tfmtr.datasets.files import find_files
from tfmtr.datasets.holdout import is_drawn
from tfmtr.datasets.log_tables import parse_memory
from tfmtr.datasets.logs import Calendar, Logs
from tfmtr.datasets.preparing.steps import run_steps
from tfmtr.datasets.preparing.work import Work
from tfmtr.schema import check_choice
from tfmtr.scratch import scratch, sweep

TEST_FRACTION, VALIDATION_FRACTION = 0.3, 0.1
SPLITTING = ("fold", "test_fraction", "validation_fraction")


def prepare(
    logs: Logs,
    out: str | os.PathLike,
    *,
    seed: int = 0,
    examples: str = "discoveries",
    alpha: float = 10.0,
    negatives: str = "both",
    low_ratings: str = "hide",
    seen: str = "rated",
    test_fraction: float | None = None,
    validation_fraction: float | None = None,
    fold: str | tuple[int, int] | None = None,
    random_fraction: float = 0.5,
    active_fraction: float = 1.0,
    activity_lookback: datetime.timedelta | None = None,
    discovery_lookback: datetime.timedelta = datetime.timedelta(days=30),
    num_groups: int = 4,
    engine: str = "duckdb",
    spark_master: str | None = None,
    memory_limit: str = "4GB",
    missing_vectors: str = "error",
    contradictions: str = "refuse",
    text_encoder: str | os.PathLike | None = None,
    counters: Sequence[str] | None = None,
    counter_days: Sequence[int] | None = None,
    counter_prior: float = 20.0,
    like: str | os.PathLike | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Dataset:
    """Turns a log into labelled examples, feature stores and a schema.

    The folder is written under a temporary name beside `out` and renamed at the end. The same log,
    options and seed give the same files on every engine; `prepare.json` holds their fingerprint.

    Args:
        logs: A `Logs`.
        out: Folder to make; see `tfmtr.datasets.dataset` for what is in it.
        seed: Integer that every random choice depends on.
        examples: What ranking models learn from and all models' test rows are: `"discoveries"` and negatives, or
            `"impressions"`, every row that a task knows a label of, as often as it was logged, without negatives that
            are drawn. Two towers learn from discoveries, and lists are judged by them, either way.
        alpha: Negatives for each positive.
        negatives: Where they come from: `"logged"`, impressions that the log has; `"sampled"`, titles that were
            available to users and are drawn at random; or `"both"`: logged ones first, sampled ones where those are too
            few.
        low_ratings: What a rating below the threshold of the first task is: `"hide"`, no example, also none that is
            drawn; or `"negatives"`: a negative of the user's own, as if it were an impression.
        seen: What hides a title from the user's lists: `"events"`; `"rated"`, events and ratings below the threshold of
            the first task; or `"impressions"`: every row of the log.
        test_fraction: Of all users, for the test windows; 0.3 if `None`.
        validation_fraction: Of all users, for validation; 0.1 if `None`.
        fold: `(i, n)` or `"i/n"`: the test users are the i-th of n disjoint parts of all users, so that n folds test
            every user once; `None` for `test_fraction`.
        random_fraction: Of the training users: the random ones.
        active_fraction: Of the other training users: the pool of active ones (upsampling).
        activity_lookback: A user of the pool counts as active in a window after an event at most this
            long before the window's start; 90 days if `None`, or the length of a window if that is longer.
        discovery_lookback: An event is a discovery if the user had none of the title for this long.
        num_groups: Number of territory groups, unless `logs.groups` gives them.
        engine: What runs the queries: `"duckdb"`, in this process, or `"spark"`, which must see `out` and the log under
            the same paths.
        spark_master: URL of Spark's master, such as `"local[2]"`; `None` for that of Spark's configuration, which has
            all its other options, too.
        memory_limit: For this process, such as `"4GB"`; larger work spills to disk.
        missing_vectors: `"error"`, or `"zero"` for a zero vector where an upstream store has none.
        contradictions: What to do about a label 1 of a task whose label of the task it follows is 0, such as a purchase
            without a click: `"refuse"`, or `"keep"`: heads for cascades train on 0 there, tests see the label as it is.
        text_encoder: Path of a KerasHub preset that turns title text into vectors, or `None` for TF-IDF.
        counters: What is counted as of each window's start, as features: `"title"`, `"user"`, a title with columns of a
            request (`"title,territory"`, `"title,tab"`), or a user with a column of the titles (`"user,genre"`); see
            `tfmtr.datasets.counters`. `None` for nothing.
        counter_days: How many days before the window's start they look back; 1, 7 and 28 if `None`.
        counter_prior: As many rows of the overall rate are added to each of their rates, which shrinks those of few
            rows towards it.
        like: A `Dataset` that these data continue: their tables must have the same columns, and texts get the
            vectors that were fitted then. `None` for data of their own.
        overwrite: Whether to replace a prepared folder.
        progress: Whether to show a progress bar, if standard error is a terminal.

    Returns:
        A `Dataset`.

    Raises:
        ValueError: If an option, a table or a vector is not what it must be, or `out` is in use. The warnings until
            then are its notes.
        ImportError: If Spark is asked for and not installed.
    """
    others = ("logs", "out", "like", "overwrite", "progress")
    options = {name: value for name, value in locals().items() if name not in (*others, "others")}
    if not isinstance(logs, Logs):
        raise ValueError(f"`logs` must be a `tfmtr.Logs`, which names the tables. Received: logs={logs!r}")
    out = check_path("out", out)
    check_numbers(options)
    check_counters(options, logs)
    complete_split(options, logs)
    check_options(options)
    check_shown(options, logs)
    like = None if like is None else Dataset(like)
    sweep(*workplace(out))
    check_output(out, overwrite)
    return make(
        logs, out, options, run_steps, lambda folder: open_engine(folder, options), like=like, progress=progress
    )


def make(
    logs: Logs,
    out: Path,
    options: Mapping[str, Any],
    run: Callable[[Work], None],
    start: Callable[[Path], Engine],
    *,
    like: Dataset | None = None,
    progress: bool = True,
) -> Dataset:
    """Runs the steps of a preparation in a folder beside `out`, which takes its place at the end.

    Args:
        logs: A `Logs`.
        out: Folder to make.
        options: The options, `memory_limit` among them.
        run: Function of a `Work` that runs the steps.
        start: Function of a folder for temporary files that gives the `Engine`.
        like: The `Dataset` that these data continue, or `None`.
        progress: Whether to show a progress bar, if standard error is a terminal.

    Returns:
        The `Dataset`.

    Raises:
        ValueError: As the steps; the warnings until then are its notes.
    """
    with scratch(*workplace(out)) as folder, progress_bar(progress) as advance:
        result = Path(folder, "result")
        with contextlib.closing(start(Path(folder, "spill"))) as opened:
            work = Work(opened, logs, result, Path(folder, "work"), options, advance, like)
            try:
                with explaining(opened.errors, logs, options["memory_limit"]):
                    run(work)
            except Exception as error:
                for warning in work.warnings:
                    error.add_note(warning)
                raise
        if out.exists():
            out.rename(Path(folder, "replaced"))  # `workplace` brings it back if this process ends here
        result.rename(out)
    return Dataset(out)


def open_engine(folder: Path, options: Mapping[str, Any]) -> Engine:
    """The `Engine` that the options name, with its temporary files in a folder."""
    memory = parse_memory(options["memory_limit"])
    if options["engine"] == "duckdb":
        return DuckDB(folder, memory)
    from tfmtr.datasets.engines.spark import Spark  # an extra, and slow to import

    return Spark(folder, memory, options["spark_master"])


def complete_split(options: dict[str, Any], logs: Logs) -> None:
    """Says in the options which users are for what: fractions that were not given, a fold as text.

    Raises:
        ValueError: If options say two things, or a fold is none.
    """
    fold = options["fold"]
    check_drawn(logs)
    if logs.split_column is not None:
        given = [f"{name}={options[name]}" for name in SPLITTING if options[name] is not None]
        if given:
            name = given[0].partition("=")[0]
            raise ValueError(
                f"`{name}` must be left out where `split_column` says which rows are for what. Received: {given[0]}, "
                f"split_column={logs.split_column!r}"
            )
        return
    if fold is not None:
        number, count = parse_fold(fold)
        options["fold"] = f"{number}/{count}"
        if options["test_fraction"] is not None:
            raise ValueError(
                "`test_fraction` must be left out where `fold` says which users are for the tests. Received: "
                f"test_fraction={options['test_fraction']}, fold={options['fold']}"
            )
    elif options["test_fraction"] is None:
        options["test_fraction"] = TEST_FRACTION
    if options["validation_fraction"] is None:
        options["validation_fraction"] = VALIDATION_FRACTION


def check_counters(options: dict[str, Any], logs: Logs) -> None:
    """Says in the options what is counted, as texts and numbers that JSON can hold.

    Raises:
        ValueError: If counters are none, or windows are no spans of time.
    """
    found = parse_counters(() if options["counters"] is None else options["counters"])
    if not found and options["counter_days"] is not None and list(options["counter_days"]) != list(DAYS):
        raise ValueError(
            "`counter_days` must be left out unless `counters` (`--counters`) say what is counted. Received: "
            f"counter_days={options['counter_days']}"
        )
    options["counters"] = [",".join(counter.columns) for counter in found]
    options["counter_days"] = list(parse_days(DAYS if options["counter_days"] is None else options["counter_days"]))
    options["counter_prior"] = parse_prior(options["counter_prior"])
    if found and is_drawn(logs):
        raise ValueError(
            f"`counters` must be left out where {why_drawn(logs)}. Received: counters={options['counters']}"
        )


def why_drawn(logs: Logs) -> str:
    """Why windows are no spans of time, in words."""
    return "`split_column` says which rows are for what" if logs.has_times else "there are no times (`--no-times`)"


def check_drawn(logs: Logs) -> None:
    """Raises a `ValueError` if logs without times, or of a given split, name what needs windows of time."""
    if not is_drawn(logs):
        return
    reason = why_drawn(logs)
    if logs.calendar != Calendar():
        raise ValueError(f"`calendar` must be left out where {reason}. Received: {logs.calendar}")
    if logs.has_times:
        return
    if "time" in logs.columns:
        raise ValueError(f"`columns` must name no time where {reason}. Received: time={logs.columns['time']}")
    for name in ("time_zones", "time_format"):
        if getattr(logs, name) is not None:
            raise ValueError(f"`{name}` must be left out where {reason}. Received: {name}={getattr(logs, name)!r}")


def check_shown(options: Mapping[str, Any], logs: Logs) -> None:
    """Raises a `ValueError` if impressions are asked for that windows do not have, or requests without them."""
    if options["examples"] == "discoveries":
        if "request" in logs.columns:
            raise ValueError(
                '`columns` may name a request, of whose list a row is, with `examples="impressions"` '
                f"(`--examples impressions`) only. Received: request={logs.columns['request']!r}"
            )
    elif is_drawn(logs):
        what = "has_times=False" if not logs.has_times else f"split_column={logs.split_column!r}"
        raise ValueError(
            '`examples` must be "discoveries" where windows are no spans of time, but drawn. Received: '
            f'examples="impressions", {what}'
        )


def parse_fold(fold: str | tuple[int, int]) -> tuple[int, int]:
    """`"i/n"` or `(i, n)` as two integers.

    Raises:
        ValueError: If it is neither, there is one fold only, or i is none of 1 to n.

    Example:
    >>> parse_fold("2/5")
    (2, 5)
    """
    parts = fold.split("/") if isinstance(fold, str) else fold
    try:
        number, count = (int(part) for part in parts)
    except (TypeError, ValueError):
        number, count = 0, 0
    if count < 2 or not 1 <= number <= count:
        raise ValueError(
            '`fold` must be i/n with at least 2 folds and i from 1 to n, such as "2/5" for the second of five. '
            f"Received: {fold!r}"
        )
    return number, count


def check_numbers(options: Mapping[str, Any]) -> None:
    """Raises a `ValueError` unless options that are numbers are numbers."""
    for name in ("alpha", "random_fraction", "active_fraction", "test_fraction", "validation_fraction"):
        if options[name] is not None or name in ("alpha", "random_fraction", "active_fraction"):
            check_number(name, options[name])
    for name in ("seed", "num_groups"):
        check_integer(name, options[name])


def check_options(options: Mapping[str, Any]) -> None:
    """Raises a `ValueError` unless fractions, ratios and times are in their ranges."""
    for name in ("test_fraction", "validation_fraction", "random_fraction", "active_fraction"):
        if options[name] is not None and not 0 <= options[name] <= 1:
            raise ValueError(f"`{name}` must be in [0, 1]. Received: {name}={options[name]}")
    if options["test_fraction"] is None and options["fold"] is None:
        pass  # the split is given
    elif options["fold"] is not None:
        _, count = parse_fold(options["fold"])
        if options["validation_fraction"] >= 1 - 1 / count:
            raise ValueError(
                "`validation_fraction` must leave users for training beside those of the fold. Received: "
                f"validation_fraction={options['validation_fraction']}, fold={options['fold']}"
            )
    elif options["test_fraction"] + options["validation_fraction"] >= 1:
        raise ValueError(
            "`test_fraction` and `validation_fraction` must leave users for training. Received: "
            f"test_fraction={options['test_fraction']}, validation_fraction={options['validation_fraction']}"
        )
    if not 0 <= options["seed"] < 2**32:
        raise ValueError(f"`seed` must be a whole number in [0, 2**32). Received: seed={options['seed']}")
    if not 0 < options["alpha"] < math.inf:
        raise ValueError(f"`alpha` must be positive. Received: alpha={options['alpha']}")
    for name in ("activity_lookback", "discovery_lookback"):
        value = options[name]
        if value is not None and (not isinstance(value, datetime.timedelta) or value <= datetime.timedelta(0)):
            raise ValueError(f"`{name}` must be a positive time. Received: {name}={options[name]}")
    check_choice("examples", options["examples"], ("discoveries", "impressions"))
    check_choice("contradictions", options["contradictions"], ("refuse", "keep"))
    check_choice("negatives", options["negatives"], ("logged", "sampled", "both"))
    check_choice("low_ratings", options["low_ratings"], ("hide", "negatives"))
    check_choice("seen", options["seen"], ("events", "rated", "impressions"))
    if options["low_ratings"] == "negatives" and options["negatives"] == "sampled":
        raise ValueError(
            '`negatives` must be "logged" or "both" with `low_ratings="negatives"`: low ratings are logged. Received: '
            f"negatives={options['negatives']!r}"
        )
    check_choice("missing_vectors", options["missing_vectors"], ("error", "zero"))
    check_choice("engine", options["engine"], ("duckdb", "spark"))
    if options["spark_master"] is not None and options["engine"] != "spark":
        raise ValueError(
            '`spark_master` must be left out unless `engine="spark"` (`--engine spark`). Received: '
            f"spark_master={options['spark_master']!r}, engine={options['engine']!r}"
        )
    parse_memory(options["memory_limit"])


@contextlib.contextmanager
def explaining(errors: tuple[type[Exception], ...], logs: Logs, memory_limit: str) -> Iterator[None]:
    """Makes an engine's errors a `ValueError` where memory was short or a file is damaged."""
    try:
        yield
    except (ValueError, *errors) as error:
        if isinstance(error.__cause__ or error, duckdb.OutOfMemoryException):
            raise ValueError(
                f"`memory_limit` must be larger for this log. Received: memory_limit={memory_limit}"
            ) from error
        if isinstance(error, errors):
            check_whole(logs)
        raise


def check_whole(logs: Logs) -> None:
    """Raises a `ValueError` that names the Parquet file of a log that is damaged, if one is; reads all of them."""
    for argument in ("events", "users", "titles", "availability", "user_vectors", "title_vectors"):
        path = getattr(logs, argument)
        if path is not None and path != "anywhere":
            found = find_files(path, argument)
            for file in () if found.is_csv else found.files:
                check_pages(file, argument)


def check_output(out: Path, overwrite: bool) -> None:
    """Raises a `ValueError` unless `out` is free, or a prepared folder that may be replaced."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / "prepare.json").is_file():
        raise ValueError(
            f"`out` must be a new folder or one made by `tfmtr prepare`. Received: {out}, which holds other files"
        )
    if not overwrite:
        raise ValueError(
            f"`out` must be a new folder, or pass `overwrite=True` (`--overwrite`) to replace it. Received: {out}"
        )


@contextlib.contextmanager
def progress_bar(is_shown: bool) -> Iterator[Callable[..., None]]:
    """Shows one bar on standard error if it is a terminal; gives a function `advance(text, total=None)`."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not (is_shown and console.is_terminal)) as bar:
        task = bar.add_task("Reading tables", total=None)

        def advance(text: str, total: int | None = None) -> None:
            bar.update(task, advance=0 if total else 1, description=text, total=total or None)

        yield advance
