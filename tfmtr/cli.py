"""The `tfmtr` command: thin, one function a step; TensorFlow is imported by the steps that need it."""

import contextlib
import dataclasses
import datetime
import enum
import gc
import inspect
import logging
import os
import re
import sys
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
import typer.core
from rich.console import Console
from rich.text import Text

from tfmtr.arguments import (
    calendar_of,
    ending_in_order,
    in_words_of,
    pairs,
    places_of,
    texts_of,
    typed_path,
    whole_numbers,
    words_of,
)
from tfmtr.evaluation.fitting_table import printable
from tfmtr.serving.options import ServerOptions
from tfmtr.startup import start_quickly

if TYPE_CHECKING:
    from typer._click.core import Command, Context  # Typer's own copy of Click, to which it gives no public name

    from tfmtr.datasets.logs import Logs
    from tfmtr.version import Version

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
    rich_markup_mode=None,
)


class PrepareGroup(typer.core.TyperGroup):
    """Has a command for every file of `tfmtr/datasets/public`, made when it is asked for."""

    def list_commands(self, ctx: "Context") -> list[str]:
        """Names of all commands."""
        from tfmtr.datasets import public

        return [*super().list_commands(ctx), *public.names()]

    def get_command(self, ctx: "Context", cmd_name: str) -> "Command | None":
        """The command of a name, `None` if there is none."""
        from tfmtr.datasets import public

        own = super().get_command(ctx, cmd_name)
        return own or (public_command(cmd_name) if cmd_name in public.names() or ":" in cmd_name else None)


prepare_app = typer.Typer(
    help="Build the training set from a service's logs.",
    no_args_is_help=True,
    rich_markup_mode=None,
    cls=PrepareGroup,
)
app.add_typer(prepare_app, name="prepare")
console = Console(stderr=True)

Out = Annotated[Path, typer.Option(help="Directory to write; must be new, or prepared before and --overwrite.")]
SOURCE_HELP = "Where the data set's own files are: the folder, archive or file."


SIGNATURE_HELP = "A further signature, package.module:function; repeat."
INDEX_HELP = "exact; streaming, whose vectors stay in a file; or scann, approximate, with operations of its own."


def prepare_options(command: Callable[..., "Logs"]) -> Callable[..., None]:
    """Adds the options that all data sets share to a command `(logs...) -> Logs` and prepares what it returns."""
    import functools

    @functools.wraps(command)
    def wrapped(
        *,
        out: Path,
        seed: int,
        alpha: float,
        negatives: str,
        low_ratings: str,
        seen: str,
        test_fraction: float | None,
        validation_fraction: float | None,
        fold: str | None,
        random_fraction: float,
        num_groups: int,
        engine: str,
        spark_master: str | None,
        memory_limit: str,
        missing_vectors: str,
        contradictions: str,
        text_encoder: Path | None,
        like: Path | None,
        overwrite: bool,
        window_days: float | None,
        train_windows: int | None,
        test_windows: int | None,
        end: datetime.datetime | None,
        warm_up: float | None,
        **arguments: Any,
    ) -> None:
        from tfmtr.datasets.dataset import Dataset
        from tfmtr.datasets.prepare import prepare
        from tfmtr.evaluation.tables import funnel_table, statistics_table
        from tfmtr.scratch import scratch

        with scratch(out.parent, ".tables-") as tables:
            logs = command(tables=tables, **arguments)
            calendar = calendar_of(
                logs.calendar,
                window_days=window_days,
                train_windows=train_windows,
                test_windows=test_windows,
                end=end,
                warm_up=warm_up,
            )
            logs = dataclasses.replace(logs, calendar=calendar)
            prepared = prepare(
                logs,
                out,
                seed=seed,
                alpha=alpha,
                negatives=negatives,
                low_ratings=low_ratings,
                seen=seen,
                test_fraction=test_fraction,
                validation_fraction=validation_fraction,
                fold=fold,
                random_fraction=random_fraction,
                num_groups=num_groups,
                engine=engine,
                spark_master=spark_master,
                memory_limit=memory_limit,
                missing_vectors=missing_vectors,
                contradictions=contradictions,
                text_encoder=text_encoder,
                like=like and Dataset(like),
                overwrite=overwrite,
            )
        Console().print(statistics_table(prepared.report))
        if "calendar" in prepared.report:
            Console().print(Text(f"windows: {prepared.report['calendar']['text']}"), soft_wrap=True)
        if "funnel" in prepared.report:  # public data sets with given splits have none
            Console().print(funnel_table(prepared.report))
        for warning in prepared.report["warnings"]:
            note("warning", "yellow", warning)

    def option(name: str, annotation: Any, default: Any) -> inspect.Parameter:
        return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)

    shared = [
        option(
            "window_days",
            Annotated[
                float | None,
                typer.Option(help="Length of a window in days; by default one is chosen that covers the log."),
            ],
            None,
        ),
        option(
            "train_windows",
            Annotated[
                int | None, typer.Option(help="Number of training windows; by default as many as cover the log.")
            ],
            None,
        ),
        option(
            "test_windows",
            Annotated[
                int | None, typer.Option(help="Number of test windows; by default 3, or fewer if the log is short.")
            ],
            None,
        ),
        option(
            "end",
            Annotated[
                datetime.datetime | None,
                typer.Option(help="End of the training window, UTC; by default the log's last windows are the tests."),
            ],
            None,
        ),
        option(
            "warm_up",
            Annotated[
                float | None,
                typer.Option(
                    help="Share of the events that only count as history before the first window; 0.2 if not given."
                ),
            ],
            None,
        ),
        option("out", Out, inspect.Parameter.empty),
        option("seed", Annotated[int, typer.Option(help="Of every sample drawn.")], 0),
        option("alpha", Annotated[float, typer.Option(help="Negatives for each positive.")], 10.0),
        option(
            "negatives",
            Annotated[str, typer.Option(help="Negatives are logged, sampled, or both: logged ones first.")],
            "both",
        ),
        option(
            "low_ratings",
            Annotated[
                str,
                typer.Option(help="What is rated below the first task's threshold is to hide, or to be negatives."),
            ],
            "hide",
        ),
        option(
            "seen",
            Annotated[
                str,
                typer.Option(help="Lists leave out what a user had (events), rated too (rated), or saw (impressions)."),
            ],
            "rated",
        ),
        option(
            "test_fraction",
            Annotated[float | None, typer.Option(help="Share of users for the tests; 0.3 if not given.")],
            None,
        ),
        option(
            "validation_fraction",
            Annotated[float | None, typer.Option(help="Share of users for validation; 0.1 if not given.")],
            None,
        ),
        option(
            "fold",
            Annotated[
                str | None,
                typer.Option(
                    help="Take the i-th of n disjoint parts of the users for the tests, written i/n, such as 2/5."
                ),
            ],
            None,
        ),
        option(
            "random_fraction", Annotated[float, typer.Option(help="Share of the other users in the random set.")], 0.5
        ),
        option("num_groups", Annotated[int, typer.Option(help="Territory groups, where none are given.")], 4),
        option("engine", Annotated[str, typer.Option(help="Query engine: duckdb, or spark (the extra).")], "duckdb"),
        option(
            "spark_master",
            Annotated[str | None, typer.Option(help="Such as local[2]; default: what Spark's configuration says.")],
            None,
        ),
        option("memory_limit", Annotated[str, typer.Option(help="Memory of this process, such as 4GB.")], "4GB"),
        option(
            "missing_vectors", Annotated[str, typer.Option(help="Users without a vector: error, or zero.")], "error"
        ),
        option(
            "contradictions",
            Annotated[str, typer.Option(help="A label without the one it is after: refuse, or keep.")],
            "refuse",
        ),
        option(
            "text_encoder",
            Annotated[Path | None, typer.Option(help="KerasHub preset for titles' text; TF-IDF by default.")],
            None,
        ),
        option(
            "like",
            Annotated[
                Path | None,
                typer.Option(help="Dataset directory that these data continue: same columns, same vectors of texts."),
            ],
            None,
        ),
        option("overwrite", Annotated[bool, typer.Option(help="Replace a prepared directory.")], False),
    ]
    own = [p for p in inspect.signature(command).parameters.values() if p.name != "tables"]
    wrapped.__signature__ = inspect.Signature([*own, *shared])  # pyright: ignore[reportAttributeAccessIssue]
    wrapped.__annotations__ = {p.name: p.annotation for p in [*own, *shared]}
    return wrapped


def note(kind: str, style: str, text: str) -> None:
    """Prints a line such as `warning: ...` to standard error."""
    console.print(Text.assemble((kind, style), f": {printable(text)}"), soft_wrap=True)


def print_versions(is_asked: bool) -> None:
    """Answers `--version`; TensorFlow is not imported for it."""
    from importlib.metadata import PackageNotFoundError, version

    if is_asked:
        try:
            print(f"tfmtr {version('tfmtr')}, TensorFlow {version('tensorflow')}")
        except PackageNotFoundError as error:
            print(f"tfmtr: {error.name} is not installed")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=print_versions, help="Show the versions and exit.")
    ] = False,
    import_paths: Annotated[
        bool,
        typer.Option(
            "--import-paths/--no-import-paths",
            help="Run the code that recipes and runs name as package.module:function; see SECURITY.md.",
        ),
    ] = True,
) -> None:
    """From interaction logs to served recommendations, with one model for many territories and tasks."""
    if not import_paths:
        from tfmtr import components

        components.lock()


def public_command(name: str) -> "Command":
    """The command `tfmtr prepare NAME` of a public data set: its source, its own options, and those that all have."""
    from tfmtr.datasets import public

    function = public.find(name)
    source, _, *own = inspect.signature(function).parameters.values()
    is_optional = "None" in str(source.annotation)  # it can be downloaded
    options = [
        inspect.Parameter(
            "source",
            inspect.Parameter.KEYWORD_ONLY,
            annotation=Annotated[Path | None if is_optional else Path, typer.Option(help=SOURCE_HELP)],
            default=None if is_optional else inspect.Parameter.empty,
        )
    ]
    for parameter in own:
        if typing.get_origin(parameter.annotation) is not Annotated:
            raise ValueError(
                "`data set` must be a function like those of tfmtr/datasets/public, whose options have a type and a "
                f'help text: Annotated[type, "Help."]. Received: {name!r}, {parameter}'
            )
        kind, text = typing.get_args(parameter.annotation)[:2]
        options.append(parameter.replace(annotation=Annotated[kind, typer.Option(help=text)]))

    def command(*, tables: Path, source: Path | None, **arguments: Any) -> "Logs":
        return function(source, tables, **arguments)

    command.__signature__ = inspect.Signature(options)
    command.__doc__ = (inspect.getmodule(function).__doc__ or "").partition("\n\n")[0]
    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    single.command(name)(prepare_options(command))
    return typer.main.get_command(single)


@prepare_app.command("simulator")
@prepare_options
def prepare_simulator(
    *,
    tables: Path,
    num_users: Annotated[int, typer.Option(help="Users of the service.")] = 20_000,
    num_titles: Annotated[int, typer.Option(help="Titles of the catalogue.")] = 400,
    num_territories: Annotated[int, typer.Option(help="Territories.")] = 24,
    days: Annotated[int, typer.Option(help="Length of the log.")] = 60,
    heterogeneity: Annotated[float, typer.Option(help="0: one taste everywhere; 1: territories differ most.")] = 0.7,
    feedback: Annotated[float, typer.Option(help="0: popularity decides nothing that is shown; 1: most.")] = 0.4,
    impressions: Annotated[bool, typer.Option(help="Log what was shown and not streamed, too.")] = False,
    widths: Annotated[tuple[int, int], typer.Option(help="Of the user and of the title vectors.")] = (64, 96),
    simulator_seed: Annotated[int, typer.Option(help="Of the simulated world.")] = 0,
) -> "Logs":
    """A simulated video service in many territories; needs no data."""
    from tfmtr.datasets.simulator import simulator

    if simulator_seed < 0:
        raise ValueError(f"`--simulator-seed` must not be negative. Received: {simulator_seed}")
    return simulator(
        tables,
        num_users=num_users,
        num_titles=num_titles,
        num_territories=num_territories,
        days=days,
        heterogeneity=heterogeneity,
        feedback=feedback,
        impressions=impressions,
        widths=widths,
        seed=simulator_seed,
    )


@prepare_app.command("events")
@prepare_options
def prepare_events(
    *,
    tables: Path,
    events: Annotated[Path, typer.Option(help="Events: Parquet or CSV, one file or a folder.")],
    users: Annotated[Path | None, typer.Option(help="Users: one row each; those of the events by default.")] = None,
    titles: Annotated[Path | None, typer.Option(help="Titles: one row each; those of the events by default.")] = None,
    columns: Annotated[
        str,
        typer.Option("--map", help="Your column names: user=uid,title=asin,time=ts[,territory=market][,name=text]."),
    ],
    task: Annotated[
        list[str] | None,
        typer.Option(
            help="name=column[>=4][:regression | :after=name]; repeat. The first one's positives define the examples."
        ),
    ] = None,
    training: Annotated[
        list[str] | None,
        typer.Option(help="name=column[:id]: known in training only, such as the position on the page; repeat."),
    ] = None,
    availability: Annotated[
        str | None,
        typer.Option(help="Table title, territory[, start, end]; or 'anywhere'. Default: from earlier events."),
    ] = None,
    user_vectors: Annotated[Path | None, typer.Option(help="Folder: vectors.npy, ids.parquet.")] = None,
    title_vectors: Annotated[Path | None, typer.Option(help="Folder: vectors.npy, ids.parquet.")] = None,
    groups: Annotated[Path | None, typer.Option(help='JSON: {"territory": "group"}.')] = None,
    neighbours: Annotated[
        Path | None,
        typer.Option(help='JSON: {"territory": [longitude, latitude]}, to make groups of neighbours.'),
    ] = None,
    time_zones: Annotated[
        Path | None,
        typer.Option(help='JSON: {"territory": "Europe/Berlin"}; windows are then days of the territory, not of UTC.'),
    ] = None,
    time_format: Annotated[
        str | None,
        typer.Option(help='How text is written that is a time, such as "%d/%m/%Y %H:%M"; year-month-day needs none.'),
    ] = None,
    no_times: Annotated[
        bool, typer.Option("--no-times", help="Events have no time: users are held out, and their history is drawn.")
    ] = False,
    split_column: Annotated[
        str | None,
        typer.Option(help="Column of the events that says train, validation or test, where a split is given."),
    ] = None,
) -> "Logs":
    """Your own logs: an events table and, where you have them, a users and a titles table."""
    from tfmtr.datasets.logs import Logs

    return Logs(
        events=events,
        users=users,
        titles=titles,
        columns=pairs("map", columns.split(","), keys=("user", "title", "territory", "time", "name")),
        tasks=pairs("task", task or []),
        training=pairs("training", training or []),
        availability=availability if availability in (None, "anywhere") else Path(availability),
        user_vectors=user_vectors,
        title_vectors=title_vectors,
        groups=texts_of("groups", groups, "group"),
        neighbours=places_of("neighbours", neighbours),
        time_zones=texts_of("time-zones", time_zones, "Europe/Berlin"),
        time_format=time_format,
        has_times=not no_times,
        split_column=split_column,
    )


def train(
    *, data: Path, out: Path, recipe: Path | None, changes: list[str] | None, strategy: str | None, **options: Any
) -> None:
    """Train a model, then window by window as the tests will see it.

    What decides the result is a recipe: a TOML file, what the options below say in its place, and last what --set says,
    key=value as in the file; a key with a dot is an option of a part, such as share.num_experts=4. Values are as in
    TOML, words need no quotes, and none takes back what the file says. A part with options is a table, such as
    --share '{name="ple", num_experts=4}' or --schedule '{name="cosine_decay", decay_steps=5000}'.
    """
    from tfmtr.recipe import Recipe, parse_changes

    given = {name: recipe_value(name, value) for name, value in options.items() if value is not None}
    last = parse_changes(changes or ())
    given = {name: value for name, value in given.items() if name not in last} | last
    made = Recipe.load(recipe, given) if recipe else Recipe.from_document({}, given)
    check_typed(data=data)
    from tfmtr import replicas, training

    with replicas.make_strategy(strategy).scope():
        training.train(data, out, made)
    console.print(Text(f"run: {out}"), soft_wrap=True)


def recipe_value(name: str, text: Any) -> Any:
    """The value of a recipe's field from what was typed for its option."""
    from tfmtr.recipe import OPTIONAL, STORED_AS_TABLES, parse_change

    if name == "units":
        return whole_numbers("units", text)
    if name == "task_weights":
        try:
            return {task: float(weight) for task, weight in pairs("task-weights", text.split(",")).items()}
        except ValueError:
            raise ValueError(f"`--task-weights` must be task=number pairs. Received: {text!r}") from None
    if name in STORED_AS_TABLES or (name in OPTIONAL and text == "none") or (name == "groups" and text[:1] == "{"):
        return parse_change(f"{name}={text}")[1]
    return text


def check_typed(*, runs: Sequence[Path] = (), data: Path | None = None, **names: Sequence[str] | None) -> None:
    """Raises a `ValueError` for a path or a name that is mistyped, before TensorFlow is imported, which takes seconds.

    Where it is imported already, what is called next says the same.

    Args:
        runs: Run directories.
        data: A directory made by `tfmtr prepare`.
        **names: `{argument: names of parts}`.
    """
    if "tensorflow" in sys.modules:
        return
    from tfmtr import components
    from tfmtr.datasets.dataset import Dataset
    from tfmtr.run import Run

    for run in runs:
        Run(run)
    if data is not None:
        Dataset(data)
    folders = {argument: folder for folder, argument in components.ARGUMENTS.items()}
    for argument, chosen in names.items():
        for name in chosen or ():
            components.check_name(folders[argument], name)


def _train_signature() -> inspect.Signature:
    from tfmtr.recipe import Recipe, option_texts

    def option(name: str, kind: Any, default: Any = None, **about: Any) -> inspect.Parameter:
        annotation = Annotated[kind, typer.Option(*about.pop("flags", ()), **about)]
        return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)

    required = inspect.Parameter.empty
    parameters = [
        option("data", Path, required, help="Directory made by `tfmtr prepare`."),
        option("out", Path, required, help="Run directory; an interrupted run there goes on."),
        option("recipe", Path | None, help="TOML file with the recipe; its defaults otherwise."),
        option("changes", list[str] | None, flags=["--set"], help="key=value of the recipe, such as l2=1e-5; repeat."),
    ]
    texts = option_texts()
    for field in dataclasses.fields(Recipe):
        kind = next((kind for kind in (bool, int, float) if kind in (field.type, *typing.get_args(field.type))), str)
        kind = str if field.name in ("units", "task_weights") else kind
        default = ",".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
        flag = field.name.replace("_", "-")
        shown = default if kind is not bool else f"--{flag}" if default else f"--no-{flag}"
        text = texts[field.name] if default is None else f"{texts[field.name]} [default: {shown}]"
        parameters.append(option(field.name, kind | None, help=text))
    text = "none, mirrored (all GPUs of this machine) or multi_worker, by default if TF_CONFIG names workers."
    parameters.append(option("strategy", str | None, help=text))
    return inspect.Signature(parameters)


train.__signature__ = _train_signature()
app.command()(train)


@app.command()
def tune(
    out: Annotated[Path, typer.Option(help="Folder of the search; one that is there goes on.")],
    data: Annotated[
        Path | None, typer.Option(help="Directory made by `tfmtr prepare`; the search's by default.")
    ] = None,
    space: Annotated[
        Path | None, typer.Option(help="TOML file of what may be chosen; the search's own by default.")
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="TOML file with what is not searched; the default recipe otherwise.")
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="key=value of the recipe, such as head=esmm; repeat.")
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(help="What tries are judged by: ndcg of lists, pr_auc or loss of rows. [default: ndcg]"),
    ] = None,
    updates: Annotated[
        int | None, typer.Option(help="Updates of each try, the same for all; the recipe's by default.")
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(help="Number of tries, of all workers and earlier ones. [default: 20, if there is no --seconds]"),
    ] = None,
    seconds: Annotated[float | None, typer.Option(help="After how long no further try begins.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of what is drawn. [default: 0]")] = None,
    prune: Annotated[
        bool | None, typer.Option("--prune/--no-prune", help="Give up tries that are behind. [default: --prune]")
    ] = None,
    storage: Annotated[
        str | None, typer.Option(help="URL of a database, or a file, where Optuna keeps the tries; in OUT by default.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the tries' runs, in OUT/trials.")] = False,
) -> None:
    """Search for a recipe's best values by validation users; no test window is read.

    The space is a TOML file of a recipe's keys, each with choices or a range: batch_size = [512, 1024],
    learning_rate = {low = 1e-4, high = 1e-2, log = true}, "share.num_experts" = {low = 1, high = 4}. Each try is
    trained with the same number of updates, judged on its way, and given up if it is behind. The same command goes on
    with a search that was ended, also with --out alone; several at a time share the work.

    OUT/trials.jsonl lists all tries, OUT/recipe.toml is the best one's for `tfmtr train --recipe`, and OUT/report.md
    has tries, importances and territories.
    """
    from tfmtr.recipe import Recipe, parse_changes
    from tfmtr.tuning.search import tune as search

    last = parse_changes(changes or ())
    base = Recipe.load(recipe, last) if recipe else Recipe.from_document({}, last) if last else None
    found = search(
        data,
        out,
        space,
        base,
        objective=objective,
        updates=updates,
        trials=trials,
        seconds=seconds,
        seed=seed,
        prune=prune,
        storage=storage,
        keep=keep,
    )
    print(found.table())
    if found.value is not None:
        console.print(Text(f"recipe: {out / 'recipe.toml'}"), soft_wrap=True)


@app.command()
def evaluate(
    runs: Annotated[list[Path], typer.Argument(help="Run directories; the last one's gains are over the others.")],
    data: Annotated[
        Path | None, typer.Option(help="Directory made by `tfmtr prepare`; what each run was trained on by default.")
    ] = None,
    k: Annotated[int, typer.Option(help="Titles for recall@k.")] = 10,
    local_share: Annotated[
        float, typer.Option(help="A title is local in at most this share of the territories.")
    ] = 0.3,
    baselines: Annotated[
        str | None,
        typer.Option(help="Baselines to compare with, such as ease,als, or none; by default all that can be had."),
    ] = None,
    among: Annotated[
        int | None,
        typer.Option(help="Rank each positive among so many titles, too, as many papers do; 100 has 99 random others."),
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="A further metric of lists, package.module:function; repeat.")
    ] = None,
) -> None:
    """Evaluate runs on the test windows, per territory, beside what people have without them.

    Writes evaluation.json into each run. Popularity, nearest neighbours, ALS, EASE and a blend see what the model may
    see, are tuned on validation users and fitted anew before each window. Lists are as they are served: titles that a
    user had before the window are in none.
    """
    names = [run.resolve().name for run in runs]
    names = [str(run) if names.count(name) > 1 else name for run, name in zip(runs, names, strict=True)]
    if len(set(names)) < len(names):
        raise ValueError(f"`runs` must name each run once. Received: {', '.join(map(str, runs))}")
    check_typed(runs=runs, data=data, metrics=metric)
    from tfmtr.evaluation.evaluate import evaluate as evaluate_run
    from tfmtr.evaluation.evaluation import print_tables

    wanted = None
    if baselines is not None:
        wanted = [] if baselines == "none" else [name.strip() for name in baselines.split(",")]
    options = {"k": k, "local_share": local_share, "baselines": wanted, "among": among, "metrics": metric or ()}
    print_tables({name: evaluate_run(run, data, **options) for name, run in zip(names, runs, strict=True)}, Console())


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run directories; the last one's gains are over the others.")],
    out: Annotated[Path, typer.Option(help="HTML file to write; its figures go beside it.")] = Path("report.html"),
    data: Annotated[
        Path | None, typer.Option(help="Directory made by `tfmtr prepare`; where it was by default.")
    ] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Show two runs side by side.")] = False,
    task: Annotated[str | None, typer.Option(help="A binary task; the first one by default.")] = None,
    num_samples: Annotated[int, typer.Option(help="Bootstrap samples of the intervals.")] = 1000,
) -> None:
    """Write a page about evaluated runs that opens anywhere; seeds of one model are one row."""
    check_typed(runs=runs, data=data)
    from tfmtr.reporting.page import report as write_report

    print(write_report(runs, out, data=data, compare=compare, task=task, num_samples=num_samples))


@app.command()
def calibrate(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    data: Annotated[Path | None, typer.Option(help="Directory made by `tfmtr prepare`; the run's by default.")] = None,
    by: Annotated[
        str, typer.Option(help="A map for each value: an id feature, a column of the scenario, or scenario.")
    ] = "territory",
    method: Annotated[str, typer.Option(help="platt or isotonic.")] = "platt",
    min_count: Annotated[int, typer.Option(help="Positives, and negatives, for a map of one's own.")] = 30,
) -> None:
    """Fit the probabilities to validation rows; `export` then serves them so."""
    check_typed(runs=[run], data=data)
    from tfmtr.calibration import calibrate as fit
    from tfmtr.evaluation.tables import calibration_table

    Console().print(calibration_table(fit(run, data, by=by, method=method, min_count=min_count).document))


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    titles: Annotated[
        Path | None,
        typer.Option(help="Directory made by `tfmtr prepare`, whose titles are indexed; the run's data by default."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Directory of the served model.")] = Path("saved_models/two_tower"),
    index: Annotated[str, typer.Option(help=INDEX_HELP)] = "exact",
    signature: Annotated[list[str] | None, typer.Option(help=SIGNATURE_HELP)] = None,
) -> None:
    """Export a model and its title index as the next version, at once."""
    check_typed(runs=[run], data=titles, index=[index], signatures=signature)
    from tfmtr.exporting import export as export_model

    print_version(export_model(run, out, titles=titles, index=index, signatures=signature or ()))


@app.command()
def index(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    titles: Annotated[
        Path | None,
        typer.Option(help="Directory made by `tfmtr prepare`, whose titles are indexed; the run's data by default."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Directory of the served index.")] = Path("saved_models/index"),
    kind: Annotated[str, typer.Option("--index", help=INDEX_HELP)] = "exact",
    signature: Annotated[list[str] | None, typer.Option(help=SIGNATURE_HELP)] = None,
) -> None:
    """Export the title index with the towers only, as the next version: the titles of the day, without the scores."""
    check_typed(runs=[run], data=titles, index=[kind], signatures=signature)
    from tfmtr.exporting import export_index

    print_version(export_index(run, out, titles=titles, index=kind, signatures=signature or ()))


def print_version(version: "Version") -> None:
    """Prints where a `Version` is, and what it needs of the server."""
    print(version)
    if version.needs:
        note("needs", "yellow", version.needs)


Step = enum.StrEnum("Step", ["prepare", "train", "gate", "export"])
Service = Annotated[Path, typer.Option(help="Directory of the service's days; made with --start.")]


@app.command()
def daily(
    service: Service,
    day: Annotated[datetime.datetime, typer.Option(formats=["%Y-%m-%d"], help="The day whose events are complete.")],
    start: Annotated[Path | None, typer.Option(help="First time: the run that the service goes on from.")] = None,
    out: Annotated[Path, typer.Option(help="First time: directory of the served model.")] = Path(
        "saved_models/two_tower"
    ),
    events: Annotated[
        Path | None, typer.Option(help="First time: where events are now; as prepared by default.")
    ] = None,
    users: Annotated[Path | None, typer.Option(help="First time: likewise.")] = None,
    titles: Annotated[Path | None, typer.Option(help="First time: likewise.")] = None,
    availability: Annotated[Path | None, typer.Option(help="First time: likewise.")] = None,
    user_vectors: Annotated[Path | None, typer.Option(help="First time: likewise.")] = None,
    title_vectors: Annotated[Path | None, typer.Option(help="First time: likewise.")] = None,
    groups: Annotated[Path | None, typer.Option(help='JSON: {"territory": "group"} of new ones.')] = None,
    late_days: Annotated[int, typer.Option(help="Days before that late events may be of.")] = 2,
    max_drop: Annotated[float, typer.Option(help="Gate: largest relative loss of a task, also in a territory.")] = 0.05,
    max_shift: Annotated[
        float,
        typer.Option(
            help="Gate: largest loss of the live model since the days before, and of the new one in any case."
        ),
    ] = 0.3,
    max_loss: Annotated[
        float, typer.Option(help="Gate: largest relative loss of rows, users or titles since the days before.")
    ] = 0.3,
    max_share: Annotated[
        float,
        typer.Option(help="Gate: largest growth of a share: dropped, unknown, missing, without a group."),
    ] = 0.05,
    max_move: Annotated[
        float, typer.Option(help="Gate: farthest that a number's median may move, in standard deviations.")
    ] = 1.0,
    epochs: Annotated[int, typer.Option(help="Times that each row is seen.")] = 1,
    missing_vectors: Annotated[
        str | None, typer.Option(help="What has no vector: error, or zero, from this day on; as before by default.")
    ] = None,
    signature: Annotated[
        list[str] | None,
        typer.Option(help="A further signature, package.module:function, from this day on, or none; repeat."),
    ] = None,
    retry: Annotated[
        bool, typer.Option(help="Do a day again that was refused or rolled back; what has not changed is used again.")
    ] = False,
    again_from: Annotated[
        Step | None, typer.Option("--from", help="Do a day again from this step on, whether or not anything changed.")
    ] = None,
) -> None:
    """Prepare, check, train, judge, export and publish one day of a service.

    The data are judged first, against those of the live model: rows, users and titles that are missing, rows that
    cannot be used, territories without an event or a group, unknown and missing values, vectors of another model. Then
    the new model is judged against the live one. If either closes the gate, the live model stays. A day that failed or
    was interrupted is run again by the same command, a refused one with --retry: steps whose files, options and live
    model are the same keep their results. Rows of earlier days that come late are trained on for --late-days; older
    ones are counted.

    Exit codes: 0 promoted, 3 refused, 4 no events on the day, 5 a table is not what it must be, 6 another process works
    on the service, 1 any other error. The record is SERVICE/days/DAY/day.json.
    """
    from tfmtr.operations.day import check_options
    from tfmtr.operations.day import daily as run_day
    from tfmtr.operations.record import page
    from tfmtr.operations.service import start_service

    tables = {"events": events, "users": users, "titles": titles, "availability": availability}
    tables |= {"user_vectors": user_vectors, "title_vectors": title_vectors}
    signatures = [] if signature == ["none"] else signature or None
    new_groups = texts_of("groups", groups, "group")
    limits = {"max_drop": max_drop, "max_shift": max_shift, "max_loss": max_loss, "max_share": max_share}
    limits |= {"max_move": max_move}
    options = {"late_days": late_days, "epochs": epochs, "missing_vectors": missing_vectors}
    options |= {"again_from": again_from and str(again_from)}
    if start is not None:
        check_options(limits, **options)
        start_service(service, start, out, signatures=signatures, **{n: p for n, p in tables.items() if p is not None})
    result = run_day(service, day.date(), groups=new_groups, signatures=signatures, retry=retry, **limits, **options)
    Console().print(page(result))
    if result["status"] != "promoted":
        raise typer.Exit(3)


@app.command()
def rollback(service: Service) -> None:
    """Make the model live again that was so before the newest one."""
    from tfmtr.operations.service import rollback as go_back

    go_back(service)


@app.command()
def forget(
    user_id: Annotated[str, typer.Option(help="The user.")],
    service: Annotated[Path | None, typer.Option(help="Directory of a service's days.")] = None,
    data: Annotated[list[Path] | None, typer.Option(help="Directory made by `tfmtr prepare`; repeat.")] = None,
    embeddings: Annotated[list[Path] | None, typer.Option(help="Directory made by `tfmtr embeddings`; repeat.")] = None,
) -> None:
    """Remove a user's rows and vectors, and say what a deployed model may still hold."""
    from tfmtr.operations.forgetting import forget as forget_user

    for line in forget_user(user_id, service=service, data=data or (), embeddings=embeddings or ()):
        print(line)


@app.command()
def embeddings(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    out: Annotated[Path, typer.Option(help="Directory to write; must be new.")],
    data: Annotated[
        Path | None,
        typer.Option(help="Directory made by `tfmtr prepare`, of whose users and titles; the run's data by default."),
    ] = None,
) -> None:
    """Write users' and titles' vectors as Parquet, for a vector database."""
    check_typed(runs=[run], data=data)
    from tfmtr.datasets.report import counted
    from tfmtr.retrieval.embeddings import write_embeddings

    manifest = write_embeddings(run, out, data=data)
    users, titles = (counted(manifest[name], name) for name in ("users", "titles"))
    print(f"{out}: {users}, {titles}, {manifest['width']} wide")


@app.command()
def deploy_kit(
    model: Annotated[Path, typer.Option(help="Directory of the model's versions.")] = Path("saved_models/two_tower"),
    out: Annotated[Path, typer.Option(help="Directory to write.")] = Path("deploy"),
    name: Annotated[str | None, typer.Option(help="Name that clients ask for; the directory's by default.")] = None,
) -> None:
    """Write what TensorFlow Serving on a GPU needs: configurations, Docker and Kubernetes files, clients, warm-up."""
    from tfmtr.serving.deploy_kit import deploy_kit as write_kit

    for file in write_kit(model, out, name=name):
        print(out / file)


class ServeCommand(typer.core.TyperCommand):
    """Takes flags as `tensorflow_model_server` does: `--name=value`, also of those that are true or false."""

    def parse_args(self, ctx: "Context", args: list[str]) -> list[str]:
        """Turns `--enable_x=true` into `--enable_x`, and `=false` into `--no_enable_x`; answers `--version`."""
        if {"--version", "--version=true"} & set(args):
            print_versions(True)
        switches = {"true": "", "1": "", "false": "no_", "0": "no_"}
        booleans = {field.name for field in dataclasses.fields(ServerOptions) if field.type is bool}
        found = []
        for argument in args:
            name, _, value = argument.removeprefix("--").partition("=")
            is_switch = name in booleans and value.lower() in switches
            found.append(f"--{switches[value.lower()]}{name}" if is_switch else argument)
        return super().parse_args(ctx, found)


def serve(**options: Any) -> None:
    """Serve models over TF Serving's gRPC and REST protocols; flags as of tensorflow_model_server."""
    from tfmtr.serving.server import serve as serve_models

    # What is imported stays for good. Unfrozen, every full collection would walk it and hold up all answers for 0.3 s.
    gc.collect()
    gc.freeze()
    options = {name: value or None if name == "model_base_path" else value for name, value in options.items()}
    serve_models(options.pop("model_base_path"), **options)


def _serve_signature() -> inspect.Signature:
    parameters = []
    for field in dataclasses.fields(ServerOptions):
        kind = int if field.name in ("port", "rest_api_port") else field.type
        names = f"--{field.name}/--no_{field.name}" if kind is bool else f"--{field.name}"
        option = typer.Option(names, help=field.metadata["help"])
        parameters.append(
            inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default,
                              annotation=Annotated[kind, option])
        )  # fmt: skip
    return inspect.Signature(parameters)


serve.__signature__ = _serve_signature()
app.command(cls=ServeCommand)(serve)


@app.command()
def recommend(
    model: Annotated[str, typer.Option(help="Name of the served model.")],
    data: Annotated[Path, typer.Option(help="Directory made by `tfmtr prepare`, for the user's row and the names.")],
    user_id: Annotated[str, typer.Option(help="The user.")],
    server: Annotated[str, typer.Option(help="host:port of the gRPC server.")] = "127.0.0.1:8500",
    k: Annotated[int, typer.Option("-k", help="How many titles.")] = 10,
    territory: Annotated[
        str | None,
        typer.Option(help="Whose catalogue; the user's own by default."),
    ] = None,
) -> None:
    """Ask a server for one user's recommendations."""
    from tfmtr.evaluation.tables import recommendation_table
    from tfmtr.serving.recommend import recommend as ask

    if not re.fullmatch(r"unix:.+|.+:\d+", server):
        raise ValueError(f"`--server` must be host:port, or unix:path. Received: {server!r}")
    Console().print(recommendation_table(user_id, ask(server, model, data, user_id, k=k, territory=territory)))


def main() -> NoReturn:
    """Runs the command; what the user can mend is a message, not a stack trace (set TFMTR_TRACEBACK for one)."""
    from tfmtr.serving.errors import ServerError

    start_quickly()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    typed = sys.argv[1:]
    names: list[str] = []
    usage_error: Any = typer.BadParameter.__mro__[2]  # click's own, which typer does not give a name
    try:
        names = typed_names(typed)
        # A server finishes what runs before it ends, and answers the signals itself.
        with contextlib.nullcontext() if names[:1] == ["serve"] else ending_in_order():
            status = app(standalone_mode=False)
    except usage_error as error:
        if hasattr(command_of(names), "commands") and not typed[len(names) :]:
            error.show()  # the help of a command that needs another word
        else:
            note("error", "bold red", " ".join(error.format_message().replace("Value error, ", "").split()))
            note("help", "bold", " ".join(["tfmtr", *names, "--help"]))
        raise SystemExit(error.exit_code) from None
    except Exception as error:
        if os.environ.get("TFMTR_TRACEBACK"):
            raise
        for warning in getattr(error, "__notes__", ()):
            note("warning", "yellow", warning)
        text = str(error)
        if isinstance(error, OSError) and error.filename is not None:
            text = f"{typed_path(str(error.filename), words_of(typed))}: {error.strerror}"
        if isinstance(error, ValueError | ImportError | ServerError):
            text = in_words_of(command_of(names), text, typed[len(names) :])
        elif not isinstance(error, OSError):
            first = next(iter(text.splitlines()), "")
            text = f"{type(error).__name__}: {first} (what led to it is shown where TFMTR_TRACEBACK=1 is set)"
        note("error", "bold red", text)
        raise SystemExit(getattr(error, "exit_code", 1)) from None
    raise SystemExit(status if isinstance(status, int) else 0)


def typed_names(typed: Sequence[str]) -> list[str]:
    """The words of what was typed that name a command, such as `["prepare", "events"]`; options may come before it."""
    command: Any = typer.main.get_command(app)
    names = []
    for word in typed:
        if not names and word in ("--import-paths", "--no-import-paths"):
            continue
        command = command.get_command(None, word) if hasattr(command, "commands") else None
        if command is None:
            break
        names.append(word)
    return names


def command_of(names: Sequence[str]) -> "Command":
    """The command of these names."""
    command: Any = typer.main.get_command(app)
    for name in names:
        command = command.get_command(None, name)
    return command


if __name__ == "__main__":
    main()
