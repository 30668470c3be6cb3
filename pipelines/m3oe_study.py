"""Table 2 of the M3oE paper again: fifteen models, three domains, two tasks, one recipe.

    python pipelines/m3oe_study.py --data path/to/ml-1m.zip --dataset movielens --seeds 1
    python pipelines/m3oe_study.py --data path/to/KuaiRand-Pure/data --dataset kuairand --setting MDMT
    python pipelines/m3oe_study.py --report

One cell is one (model, setting, protocol, seed). It is written as soon as it is finished to
`benchmarks/results/m3oe/<dataset>/`, and a cell that is there for the same data and recipe is not computed again. The
report is printed and written to `docs/results/m3oe.md` from the cells that are there.

A setting says what is trained together: `single` a model for each domain and task, `MTL` one for each domain, `MDL` one
for each task, `MDMT` one. Models that know no domains (shared bottom, MMoE, PLE) get a tower for each pair of task and
domain in MDL and MDMT (`per_pair`).

**Recipe.** From section 3.3 of the paper: embeddings of 16, learning rate 1e-2 on MovieLens and 3e-3 on KuaiRand,
experts of one layer, 1 shared expert in M3oE on MovieLens and 4 on KuaiRand. From the authors' published code: Adam,
batches of 40,960 rows, the input columns, the layers' widths (which are the sharing files' defaults). The loss is the
paper's equation 12, the sum over domains and tasks of each pair's mean binary cross-entropy, means being the batch's.
Where the published code and the paper differ, the paper is followed: the code has two optimisers whose parameters
overlap; here there is one, and M3oE's fusion weights are trained with all other weights (not yet alternately, as
section 2.6.1 has it). Nothing was tuned: every model has this recipe, the same epochs and the same early stopping.

**Protocol.** The paper says 8:1:1 and not in which order, and the order decides everything. With the published code on
this data (4 shared experts, one seed), validation AUC stays at 72.3 in file order, where test users are new; a random
split gives a test AUC of 80.0; sorted by time the six test cells are 76.2 77.3 77.5 79.3 74.6 75.4 after 16 epochs,
mean 76.7 (published: 77.02). So `time` is the protocol to compare in full. Under `time` on MovieLens a quarter of the
validation rows but four fifths of the test rows are of users seen in training; the epoch is therefore chosen on
validation rows of seen users (mean AUC over domains and tasks, patience 2, best epoch restored; on all rows where
seen users have too few, as in file order). Results are for all test rows, and for warm (seen) and cold users apart.
The test rows are read once a cell, after the epoch is chosen.

**Figures.** Overall is the unweighted mean over the domains and tasks, as the paper's 77.02 is; pooled is over the
rows of all domains, mean over tasks. RelaImpr = ((AUC - 0.5) / (best baseline's AUC - 0.5) - 1) x 100.

Expected on MovieLens by time, 8 epochs at most: see `docs/results/m3oe.md`.
"""

import argparse
import dataclasses
import functools
import hashlib
import itertools
import json
import logging
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pyarrow.compute as pc
from rich.console import Console
from sklearn.metrics import roc_auc_score

from tfmtr import components, inputs, models, training
from tfmtr.datasets.domains import PROTOCOLS, SPLITS
from tfmtr.datasets.kuairand import kuairand
from tfmtr.datasets.movielens_domains import movielens_domains
from tfmtr.evaluation import compare
from tfmtr.evaluation.metrics import OVERALL, evaluate_task
from tfmtr.heads.parallel import parallel
from tfmtr.schema import Scenario, check_choice
from tfmtr.sharing._shared import per_pair

logging.getLogger("tensorflow").setLevel("ERROR")  # every one of the many models is traced anew: no news
RESULTS = Path("benchmarks/results/m3oe")
PAGE = Path("docs/results/m3oe.md")
SETTINGS = ("single", "MTL", "MDL", "MDMT")
KNOW_NO_DOMAINS = ("shared_bottom", "mmoe", "ple")
OURS = "M3oE"


class Row(NamedTuple):
    """A row of Table 2: what is trained, and what was published, in percent.

    The published figures are the AUC of (domain 1, task 1), (domain 1, task 2), (domain 2, task 1) ... and the
    overall AUC and log loss.
    """

    name: str
    system: str
    setting: str
    movielens: tuple
    kuairand: tuple


TABLE_2 = (
    Row(
        *("MLP", "mlp", "single"),
        (75.02, 76.40, 76.27, 78.66, 73.21, 74.15, 75.62, 51.51),
        (58.42, 51.50, 69.28, 70.07, 61.82, 61.22, 62.05, 44.68),
    ),
    Row(
        *("ShBot-MTL", "shared_bottom", "MTL"),
        (75.36, 76.25, 75.90, 78.40, 72.51, 73.30, 75.28, 56.39),
        (61.33, 56.13, 68.62, 70.67, 63.99, 63.81, 64.09, 53.37),
    ),
    Row(
        *("PLE-MTL", "ple", "MTL"),
        (75.42, 76.23, 75.87, 78.32, 72.73, 72.49, 75.18, 56.49),
        (58.56, 53.48, 68.08, 69.39, 63.63, 63.32, 62.74, 54.05),
    ),
    Row(
        *("MMoE-MTL", "mmoe", "MTL"),
        (75.35, 76.96, 76.58, 78.73, 73.19, 74.63, 75.90, 51.27),
        (62.03, 60.19, 68.81, 70.91, 64.08, 64.32, 65.05, 44.07),
    ),
    Row(
        *("AdaTT", "adatt", "MTL"),
        (72.54, 74.24, 74.12, 73.01, 69.75, 70.25, 72.32, 58.72),
        (61.92, 60.59, 64.86, 67.28, 61.40, 60.65, 62.78, 44.41),
    ),
    Row(
        *("AdaTT-sp", "adatt_sp", "MTL"),
        (72.49, 73.51, 76.04, 77.59, 73.04, 74.26, 74.49, 54.65),
        (60.01, 58.28, 65.75, 68.06, 61.15, 60.35, 62.27, 48.80),
    ),
    Row(
        *("ShBot-MDL", "shared_bottom", "MDL"),
        (75.70, 76.50, 76.58, 78.10, 73.88, 74.76, 75.92, 51.53),
        (64.29, 63.36, 65.83, 67.22, 65.88, 65.47, 65.34, 44.04),
    ),
    Row(
        *("MMoE-MDL", "mmoe", "MDL"),
        (75.77, 76.50, 76.71, 78.37, 73.92, 75.16, 76.08, 51.48),
        (64.33, 63.00, 66.16, 67.39, 65.52, 65.27, 65.28, 44.28),
    ),
    Row(
        *("PLE-MDL", "ple", "MDL"),
        (75.64, 76.19, 76.48, 78.14, 73.73, 74.85, 75.84, 52.00),
        (64.02, 62.68, 66.13, 67.21, 65.62, 65.33, 65.16, 44.14),
    ),
    Row(
        *("STAR", "star", "MDL"),
        (75.89, 76.85, 76.87, 78.47, 73.68, 74.70, 76.08, 51.11),
        (64.12, 62.96, 64.91, 66.32, 65.73, 64.28, 64.72, 44.68),
    ),
    Row(
        *("ShBot-MDMT", "shared_bottom", "MDMT"),
        (75.94, 77.25, 76.56, 78.63, 73.97, 75.21, 76.26, 50.96),
        (63.32, 63.55, 65.80, 68.04, 64.45, 64.89, 65.01, 44.91),
    ),
    Row(
        *("MMoE-MDMT", "mmoe", "MDMT"),
        (76.07, 77.27, 76.86, 78.67, 73.83, 75.41, 76.35, 51.02),
        (63.50, 64.30, 65.70, 67.88, 65.61, 66.10, 65.52, 44.20),
    ),
    Row(
        *("PLE-MDMT", "ple", "MDMT"),
        (75.83, 76.95, 76.04, 78.48, 73.67, 75.09, 75.68, 51.90),
        (61.86, 61.88, 63.57, 66.09, 64.45, 63.47, 64.07, 44.67),
    ),
    Row(
        *("M2M", "m2m", "MDMT"),
        (74.12, 75.35, 75.08, 77.13, 72.11, 73.78, 74.59, 54.14),
        (61.29, 62.25, 60.44, 63.15, 61.75, 61.57, 61.74, 44.55),
    ),
    Row(
        *(OURS, "m3oe", "MDMT"),
        (76.61, 78.13, 77.51, 79.33, 74.47, 76.09, 77.02, 50.71),
        (64.85, 65.89, 66.03, 68.31, 66.21, 66.91, 66.37, 43.76),
    ),
)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What decides a cell's result, beside the data."""

    system: str
    setting: str
    protocol: str
    seed: int
    learning_rate: float
    options: dict = dataclasses.field(default_factory=dict)
    embedding_dim: int = 16
    batch_size: int = 40_960
    max_epochs: int = 8
    patience: int = 2

    @property
    def stem(self):
        """Name of the cell's file."""
        return f"{self.system}-{self.setting}-{self.protocol}-seed-{self.seed}"

    def share(self):
        """The sharing function."""
        aliases = {"mlp": "shared_bottom", "adatt_sp": "adatt"}
        share = components.find("sharing", aliases.get(self.system, self.system))
        if self.options:
            share = functools.partial(share, **self.options)
        is_wrapped = self.system in KNOW_NO_DOMAINS and self.setting in ("MDL", "MDMT")
        return per_pair(share) if is_wrapped else share


# Data set -> its reader, section 3.3's learning rate, and options of systems that are not their file's defaults.
DATASETS = {
    "movielens": (movielens_domains, 1e-2, {"adatt_sp": {"num_shared_experts": 0}, "m3oe": {"num_experts": 1}}),
    "kuairand": (kuairand, 3e-3, {"adatt_sp": {"num_shared_experts": 0}, "m3oe": {"num_experts": 4}}),
}


class Data(NamedTuple):
    """A data set as a model sees it, in memory; arrays have one value a row.

    Attributes:
        schema: The `Schema`.
        x: `{input: array}`; `scenario` is the domain, from 1.
        y: `{label column: array}`.
        users: The users' numbers.
        split: `{"train": mask, "validation": mask, "test": mask}`.
        is_warm: Mask of the rows whose user has a training row.
    """

    schema: Any
    x: dict
    y: dict
    users: np.ndarray
    split: dict
    is_warm: np.ndarray

    @property
    def domain(self):
        """Domain of every row, from 1."""
        return self.x["scenario"]

    @property
    def fingerprint(self):
        """Digest of all that a model can see, and of the split."""
        digest = hashlib.sha256(self.schema.to_json().encode())
        for array in (*self.x.values(), *self.y.values(), *self.split.values()):
            digest.update(np.ascontiguousarray(array))
        return digest.hexdigest()


def encode(table, schema):
    """The `Data` of an Arrow table, a row an impression."""
    users = pc.dictionary_encode(table["user"].combine_chunks()).indices.to_numpy()
    split = {name: pc.equal(table["split"], name).to_numpy() for name in SPLITS}
    is_warm = np.isin(users, np.unique(users[split["train"]]))
    return Data(schema, inputs.model_inputs(table, schema, {}), inputs.labels(table, schema), users, split, is_warm)


def parts(setting, num_domains, tasks):
    """What each model of a setting is trained on: `[(domains, tasks), ...]`, domains from 1."""
    domains = range(1, num_domains + 1)
    by_domain = [(domain,) for domain in domains] if setting in ("single", "MTL") else [tuple(domains)]
    by_task = [(task,) for task in tasks] if setting in ("single", "MDL") else [tuple(tasks)]
    return list(itertools.product(by_domain, by_task))


def fit(data, recipe, domains, tasks):
    """Trains one model of some domains and tasks.

    Returns:
        `(predict, history)`: a function from a mask of rows to `{task: scores}`, and figures by epoch:
        `{"loss": [...], "val_auc": [...], "seconds": [...]}`.
    """

    def take(rows):
        x = {name: array[rows] for name, array in data.x.items()}
        if len(domains) == 1:
            x["scenario"] = np.ones_like(x["scenario"])
        return x, {task.column: data.y[task.column][rows] for task in tasks}

    is_ours = np.isin(data.domain, domains)
    x, y = take(is_ours & data.split["train"])
    validation = validation_rows(data, is_ours & data.split["validation"], tasks)
    names = [data.schema.scenario.names[domain - 1] for domain in domains]
    schema = data.schema.replace(
        tasks=[dataclasses.replace(task, mean=float(y[task.column].mean())) for task in tasks],
        scenario=Scenario(["domain"], {(name,): name for name in names}),
    )
    keras.utils.clear_session()
    keras.utils.set_random_seed(recipe.seed)  # of the weights and of the order of each epoch's rows
    model = models.ranking(
        schema,
        share=recipe.share(),
        head=functools.partial(parallel, normalizer="groups", num_groups=len(domains)),
        embedding_dim=recipe.embedding_dim,
    )
    model.compile(keras.optimizers.Adam(recipe.learning_rate))
    history = model.fit(
        x,
        y,
        batch_size=recipe.batch_size,
        epochs=recipe.max_epochs,
        verbose=0,
        callbacks=[
            ValidationAUC(*take(validation), data.domain[validation], tasks, recipe.batch_size),
            keras.callbacks.EarlyStopping("val_auc", mode="max", patience=recipe.patience, restore_best_weights=True),
        ],
    ).history

    def predict(rows):
        scores = model.predict(take(rows)[0], batch_size=recipe.batch_size, verbose=0)
        return {task: values[:, 0] for task, values in scores.items()}

    return predict, history


def validation_rows(data, validation, tasks):
    """Mask of the validation rows of seen users; of all where a domain and task could not be measured on those."""
    warm = validation & data.is_warm
    domains = np.unique(data.domain[validation])
    for task in tasks:
        cells = measure(data, task, np.zeros(len(warm)), warm)
        if any(cells.get(str(domain), {"reason": "no rows"})["reason"] for domain in domains):
            return validation
    return warm


class ValidationAUC(keras.callbacks.Callback):
    """Adds to an epoch's figures `val_auc`, the mean over domains and tasks, and the `seconds` of its training."""

    def __init__(self, x, y, domain, tasks, batch_size):
        super().__init__()
        self.x, self.y, self.domain, self.tasks, self.batch_size = x, y, domain, tasks, batch_size

    def on_epoch_begin(self, epoch, logs=None):
        """Starts the clock."""
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        """Evaluates."""
        logs["seconds"] = time.perf_counter() - self.start
        scores = self.model.predict(self.x, batch_size=self.batch_size, verbose=0)
        cells = itertools.product(self.tasks, np.unique(self.domain))
        logs["val_auc"] = float(
            np.mean(
                [
                    roc_auc_score(self.y[task.column][self.domain == domain], scores[task.name][self.domain == domain])
                    for task, domain in cells
                ]
            )
        )


def run(data, recipe, folder):
    """One cell, from its file if it is there, and whether it was computed."""
    file = folder / f"{recipe.stem}.json"
    asked = {"fingerprint": data.fingerprint, "recipe": json.loads(json.dumps(dataclasses.asdict(recipe)))}
    if file.exists():
        there = json.loads(file.read_text(encoding="utf-8"))
        if {key: there[key] for key in asked} == asked:
            return there, False
    start, histories, num_examples = time.perf_counter(), {}, 0
    test = data.split["test"]
    scores = {task.name: np.full(len(test), np.nan) for task in data.schema.tasks}
    for domains, tasks in parts(recipe.setting, data.schema.scenario.num_groups, data.schema.tasks):
        predict, history = fit(data, recipe, domains, tasks)
        is_ours = np.isin(data.domain, domains)
        for task, values in predict(test & is_ours).items():
            scores[task][test & is_ours] = values
        histories[f"d{'+'.join(map(str, domains))} {'+'.join(task.name for task in tasks)}"] = history
        num_examples += int((is_ours & data.split["train"]).sum()) * len(history["loss"])
    epochs = [len(history["loss"]) for history in histories.values()]
    document = {
        "dataset": folder.name,
        **asked,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "versions": training.versions(),
        "epochs": epochs,
        "best_epochs": [1 + int(np.argmax(history["val_auc"])) for history in histories.values()],
        "seconds": time.perf_counter() - start,
        "examples_per_second": num_examples / sum(sum(history["seconds"]) for history in histories.values()),
        "test": {
            name: {task.name: measure(data, task, scores[task.name], mask) for task in data.schema.tasks}
            for name, mask in {"all": test, "warm": test & data.is_warm, "cold": test & ~data.is_warm}.items()
        },
        "history": histories,
    }
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return document, True


def measure(data, task, scores, rows):
    """Metrics of one task by domain and pooled."""
    if not rows.any():
        return {}
    return evaluate_task(data.y[task.column][rows], scores[rows], data.domain[rows], data.users[rows], kind=task.kind)


def figures(cell):
    """The figures of a cell that the report shows, in percent: `{column: value or None}`.

    Columns are `d1 click` and so on; `overall`, their unweighted mean, and `pooled`; the same of log loss; and the
    overall AUC on test rows of users seen in training (`warm`) and of new ones (`cold`).
    """

    def table(rows, metric):
        return {
            (domain, task): values[metric] for task, by in cell["test"][rows].items() for domain, values in by.items()
        }

    def mean(values, *, pooled=False):
        values = [value for (domain, _), value in values.items() if (domain == OVERALL) == pooled]
        return None if not values or None in values else float(100 * np.mean(values))

    auc, log_loss = table("all", "roc_auc"), table("all", "log_loss")
    tasks = list(cell["test"]["all"])
    domains = [domain for domain in cell["test"]["all"][tasks[0]] if domain != OVERALL]
    columns = {
        f"d{domain} {task}": None if auc[domain, task] is None else 100 * auc[domain, task]
        for domain in domains
        for task in tasks
    }
    return {
        **columns,
        "overall": mean(auc),
        "pooled": mean(auc, pooled=True),
        "log loss": mean(log_loss),
        "pooled log loss": mean(log_loss, pooled=True),
        "warm": mean(table("warm", "roc_auc")),
        "cold": mean(table("cold", "roc_auc")),
    }


def relative_improvement(auc, best):
    """Gain in percent over the best baseline, of what an AUC has above chance; both AUCs in percent.

    >>> round(relative_improvement(76.61, 76.07), 2)
    2.07
    """
    return 100 * ((auc - 50) / (best - 50) - 1)


def report(cells):
    """The page: one table for each data set and protocol, from the cells that there are."""
    groups = {}
    for cell in cells:
        groups.setdefault((cell["dataset"], cell["recipe"]["protocol"]), []).append(cell)
    sections = [section(*key, group) for key, group in sorted(groups.items())]
    return "\n".join(["# Table 2 of the M3oE paper\n", LEGEND, *sections])


LEGEND = """AUC and log loss in percent, means over the seeds; `pipelines/m3oe_study.py` has the recipe, the protocols
and the definitions. In brackets: the published figure, and the difference to it. A dagger marks a published overall AUC
that is not the mean of its published cells. Overall is the mean over domains and tasks; pooled is over the rows of all
domains, mean over tasks; warm and cold are the overall AUC for users with and without a training row. Epochs: the one
restored, of each model. In the line RelaImpr the published gain is in brackets.
"""


def section(dataset, protocol, cells):
    """One table."""
    rows = {}
    for row in TABLE_2:
        of_row = [c for c in cells if (c["recipe"]["system"], c["recipe"]["setting"]) == (row.system, row.setting)]
        if of_row:
            rows[row] = sorted(of_row, key=lambda cell: cell["recipe"]["seed"])
    seeds = {row: [figures(cell) for cell in of_row] for row, of_row in rows.items()}
    means = {
        row: {column: compare.mean_and_deviation([values[column] for values in of_row])[0] for column in of_row[0]}
        for row, of_row in seeds.items()
    }
    columns = list(next(iter(means.values())))
    compared = columns[: columns.index("overall") + 1]
    with_published = {column: i for i, column in enumerate([*compared, "log loss"])}
    lines = [line(["model", "setting", *columns, "epochs", "seeds"]), line(["---"] * (len(columns) + 4))]
    for row, values in means.items():
        published = getattr(row, dataset)
        texts = [
            beside(
                values[column], published[with_published[column]], mark=column == "overall" and not adds_up(published)
            )
            if column in with_published
            else text(values[column])
            for column in columns
        ]
        epochs = " ".join(str(epoch) for cell in rows[row] for epoch in cell["best_epochs"])
        lines.append(line([row.name, row.setting, *texts, epochs, str(len(rows[row]))]))
    lines += comparison(means, seeds, dataset, compared, len(columns))
    any_cell = cells[0]
    recipes = sorted({json.dumps(common(cell["recipe"])) for cell in cells})
    versions = ", ".join(f"{name} {version}" for name, version in any_cell["versions"].items())
    test_rows = any_cell["test"]["all"]
    task = next(iter(test_rows))
    return "\n".join(
        [
            f"## {dataset}, split by {protocol}\n",
            f"{test_rows[task][OVERALL]['rows']:,} test rows; data {any_cell['fingerprint'][:12]}; "
            f"recipe {' and '.join(recipes)}; {versions}.\n",
            *lines,
            "",
        ]
    )


def comparison(means, seeds, dataset, compared, num_columns):
    """Lines that compare M3oE with the best baseline of each column."""
    baselines = {row: values for row, values in means.items() if row.name != OURS}
    ours = next((row for row in means if row.name == OURS), None)
    if ours is None or not baselines:
        return []
    published = dict(zip(compared, zip(*(getattr(row, dataset) for row in TABLE_2), strict=True), strict=False))
    gains, p_values, names = [], [], []
    for column in compared:
        there = [row for row in baselines if baselines[row][column] is not None]
        if not there or means[ours][column] is None:
            gains.append("n/a")
            names.append("")
            continue
        best = max(there, key=lambda row: baselines[row][column])
        gain = relative_improvement(means[ours][column], baselines[best][column])
        *others, own = published[column]
        gains.append(f"{gain:+.2f} ({relative_improvement(own, max(others)):+.2f})")
        names.append(best.name)
        p_values.append(compare.welch(*([values[column] for values in seeds[row]] for row in (ours, best))))
    blank = [""] * (num_columns - len(compared) + 2)
    lines = [
        line(["best baseline", "", *names, *blank]),
        line(["RelaImpr", "", *gains, *blank]),
    ]
    if p_values and None not in p_values:
        adjusted = [text(value, ".3f") for value in compare.holm(p_values)]
        lines.append(line(["p (Welch, Holm)", "", *adjusted, *[""] * (len(compared) - len(adjusted)), *blank]))
    return lines


def common(recipe):
    """What a recipe shares with those of the other rows."""
    return {key: value for key, value in recipe.items() if key not in ("system", "setting", "seed", "options")}


def adds_up(published):
    """Whether the published overall AUC is the mean of the published cells, but for rounding."""
    *cells, overall, _ = published
    return abs(np.mean(cells) - overall) < 0.02


def text(value, template=".2f"):
    """A number as text, n/a for `None`."""
    return "n/a" if value is None else format(value, template)


def beside(value, published, *, mark=False):
    """A figure, the published one and the difference."""
    difference = "" if value is None else f" {value - published:+.2f}"
    return f"{text(value)} ({published:.2f}{'†' if mark else ''}{difference})"


def line(values):
    """A line of a table."""
    return f"| {' | '.join(values)} |"


def chosen_rows(systems, settings):
    """The rows of Table 2 that the command asks for."""
    known = sorted({row.system for row in TABLE_2})
    for system in systems:
        check_choice("models", system, ["all", *known])
    for setting in settings:
        check_choice("setting", setting, ["all", *SETTINGS])
    return [row for row in TABLE_2 if {"all", row.system} & set(systems) and {"all", row.setting} & set(settings)]


def main(dataset, path, *, rows=TABLE_2, seeds=1, protocol="time", results=RESULTS, **changes):
    """Computes the missing cells of a data set and returns all that were asked for."""
    read, learning_rate, options = DATASETS[dataset]
    data = encode(*read(path, protocol=protocol))
    console, folder = Console(soft_wrap=True), results / dataset
    wanted = list(itertools.product(range(seeds), rows))
    cells, start, num_computed = [], time.perf_counter(), 0
    for i, (seed, row) in enumerate(wanted, start=1):
        recipe = Recipe(row.system, row.setting, protocol, seed, learning_rate, options.get(row.system, {}), **changes)
        cell, is_new = run(data, recipe, folder)
        cells.append(cell)
        num_computed += is_new
        left = (time.perf_counter() - start) / max(num_computed, 1) * (len(wanted) - i)
        auc, how = text(figures(cell)["overall"]), f"epochs {cell['epochs']}" if is_new else "was there"
        console.print(
            f"[{i}/{len(wanted)}] {row.name} ({row.setting}) seed {seed}: overall AUC {auc}, {how}, "
            f"{cell['seconds']:.0f} s, {cell['examples_per_second']:,.0f} examples/s; about {left / 60:.0f} min left",
            markup=False,
            highlight=False,
        )
    return cells


def write_report(results=RESULTS, page=PAGE):
    """Prints and writes the page of all cells that there are."""
    cells = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(results.glob("*/*.json"))]
    document = report(cells)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(document, encoding="utf-8")
    Console(soft_wrap=True).print(document, markup=False, highlight=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="ml-1m.zip, or the folder of KuaiRand-Pure's tables")
    parser.add_argument("--dataset", choices=DATASETS, default="movielens")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--models", default="all", help="all, or some of " + ",".join({r.system: 0 for r in TABLE_2}))
    parser.add_argument("--setting", default="all", help="all, or some of " + ",".join(SETTINGS))
    parser.add_argument("--protocol", choices=PROTOCOLS, default="time")
    parser.add_argument("--max-epochs", type=int, default=8)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the cells")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--report", action="store_true", help="only the report, from the cells that are there")
    arguments = parser.parse_args()
    if not arguments.report:
        if arguments.data is None:
            parser.error("--data is needed, except with --report")
        main(
            arguments.dataset,
            arguments.data,
            rows=chosen_rows(arguments.models.split(","), arguments.setting.split(",")),
            seeds=arguments.seeds,
            protocol=arguments.protocol,
            results=arguments.results,
            max_epochs=arguments.max_epochs,
        )
    write_report(arguments.results, arguments.page)
