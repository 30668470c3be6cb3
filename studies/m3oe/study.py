"""Tables 2 and 3 and Figures 1 and 3 of the M3oE paper again: three domains, two tasks, one recipe.

    python studies/m3oe/study.py --data path/to/ml-1m.zip --seeds 3
    python studies/m3oe/study.py --data path/to/ml-1m.zip --models mlp,star,m3oe,ours --seeds 5
    python studies/m3oe/study.py --data path/to/ml-1m.zip --models shared_bottom,mmoe --setting MDMT --seeds 5
    python studies/m3oe/study.py --data path/to/ml-1m.zip --models ablations --seeds 3
    python studies/m3oe/study.py --data path/to/ml-1m.zip --models m3oe --mode paper --seeds 3
    python studies/m3oe/study.py --data path/to/ml-1m.zip --models readings,others
    python studies/m3oe/study.py --data path/to/ml-1m.zip --models mlp,star,m3oe --protocol random
    python studies/m3oe/study.py --data path/to/KuaiRand-Pure/data --dataset kuairand --setting MDMT --seeds 3
    python studies/m3oe/study.py --data path/to/ml-1m.zip --figures
    python studies/m3oe/study.py --report

One cell is one (model, setting, protocol, seed). It is written as a line of `results.jsonl` as
soon as it is finished, and a cell that is there for the same data and recipe is not computed again. The report is
printed and written to `README.md` from the cells that are there.

A setting says what is trained together: `single` a model for each domain and task, `MTL` one for each domain, `MDL` one
for each task, `MDMT` one. Models that know no domains (shared bottom, MMoE, PLE and others) get a tower for each pair
of task and domain in MDL and MDMT (`per_pair`).

**Recipe.** From section 3.3 of the paper: embeddings of 16, learning rate 1e-2 on MovieLens and 3e-3 on KuaiRand,
experts of one layer, 1 shared expert in M3oE on MovieLens and 4 on KuaiRand. From the authors' published code, which is
for MovieLens: Adam, batches of 40,960 rows, the input columns, the layers' widths (which are the sharing files'
defaults), and 1e-5 of each weight added to its gradient on MovieLens (`--l2`), which the paper does not mention. The
loss is the paper's equation 12, the sum over domains and tasks of each pair's mean binary cross-entropy, means being
the batch's. Where the published code and the paper differ, the paper is followed: the code has two optimisers whose
parameters overlap; here there is one. `readings` are M3oE as that code has it (`as_published.py`). M3oE's fusion
weights are trained with all other weights or, with `--mode`, apart from them: `paper` as in section 2.6.1, on one batch
of training rows after an epoch of the network; `per_step` on every batch, after the network's step; `validation` on a
batch of validation rows after every step of the network. All systems whose file has the option `normalize` have layer
normalisation, as M3oE has: it was the default when the cells were computed, and their `options` do not speak of it.
Nothing was tuned: every model has this recipe and the same budget, at most 250 updates and 50 without a better
validation AUC. On KuaiRand these are the published code's 50 epochs and patience of 10. A budget in epochs would give a
model of the smallest domain of MovieLens 4 updates where a joint model gets 20.

**Rows.** `tfmtr.prepare_rows` makes the rows of three domains a data set, with its split (`studies/given_rows.py`), and
`tfmtr.fit` trains on them: arrays of the rows of a setting in memory, in an order that the seed decides.

**Protocol.** The paper says 8:1:1 and not in which order, and the order decides everything. With the published code on
this data (4 shared experts, one seed), validation AUC stays at 72.3 in file order, where test users are new; a random
split gives a test AUC of 80.0; sorted by time the six test cells are 76.2 77.3 77.5 79.3 74.6 75.4 after 16 epochs,
mean 76.7 (published: 77.02). So `time` is the protocol to compare in full. Under `time` on MovieLens a quarter of the
validation rows but four fifths of the test rows are of users seen in training; the epoch is therefore chosen on
validation rows of seen users (mean AUC over domains and tasks, best epoch restored; on all rows where
seen users have too few, as in file order). Results are for all test rows, and for warm (seen) and cold users apart.
The test rows are read once a cell, after the epoch is chosen.

**Figures.** Overall is the unweighted mean over the domains and tasks, as the paper's 77.02 is; pooled is over the
rows of all domains, mean over tasks. RelaImpr = ((AUC - 0.5) / (best baseline's AUC - 0.5) - 1) x 100. Intervals are of
a bootstrap over test users, whose draws all cells share; p-values are Welch's over seeds. The page holds each sentence
of sections 3.4 and 3.6 against the published table and the cells, with Holm's correction over all pairs of rows
(`claims.py`).

`ours` is the combination of parts that `search.py` has found on validation rows (`ours_before` what it had found
before the published code's L2 was known); `others` are the sharing files that the paper's tables do not have.

`--figures` draws Figure 1 from the cells, and Figure 3 from M3oE trained once more with seed 0.

Expected: see `studies/m3oe/README.md`.
"""

import argparse
import dataclasses
import functools
import hashlib
import itertools
import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

import keras
import numpy as np
import pyarrow.compute as pc
import tensorflow as tf
from rich.console import Console
from sklearn.metrics import roc_auc_score

from studies.cells import RESULTS, Cell, normalized, notes_of, read_cells, text
from studies.given_rows import read
from studies.m3oe import figures as drawings
from studies.m3oe.as_published import as_published
from studies.m3oe.candidates import CANDIDATES, CHOSEN, CHOSEN_BEFORE, READINGS
from studies.m3oe.published import M3OE, TABLE_2, TABLE_3, Ablation
from studies.m3oe.tables import OURS, figures, in_short, report, tried
from tfmtr import components, inputs, training
from tfmtr.checks import check_choice
from tfmtr.datasets.domains import PROTOCOLS, SPLITS
from tfmtr.datasets.kuairand_domains import kuairand
from tfmtr.datasets.movielens_domains import movielens_domains
from tfmtr.evaluation.compare import weighted_roc_auc
from tfmtr.evaluation.metrics import evaluate_task
from tfmtr.layers.fusion_weight import FusionWeight
from tfmtr.schema import Scenario

logging.getLogger("tensorflow").setLevel("ERROR")  # every one of the many models is traced anew: no news
SEARCH = "search.jsonl"
MODES = ("paper", "per_step", "validation")  # of training the fusion weights
NUM_SAMPLES = 400  # of the bootstrap over users
SETTINGS = ("single", "MTL", "MDL", "MDMT")
COMMANDS = "\n".join(line for line in __doc__.splitlines() if line.startswith("    python "))
KNOW_NO_DOMAINS = ("none", "shared_bottom", "cross_stitch", "mmoe", "snr", "ple")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What decides a cell's result, beside the data.

    `beside` has fields of `tfmtr.Recipe` beside `share`, `adam` options of the optimizer beside its rate and `l2`, the
    share of each weight that is added to its gradient. The budget is in updates of one model, rounded up to whole
    epochs: at most `max_updates`, and `patience` without a better epoch.
    """

    system: str
    setting: str
    protocol: str
    seed: int
    learning_rate: float
    options: dict = dataclasses.field(default_factory=dict)
    beside: dict = dataclasses.field(default_factory=dict)
    adam: dict = dataclasses.field(default_factory=dict)
    embedding_dim: int = 16
    batch_size: int = 40_960
    max_updates: int = 250
    patience: int = 50
    mode: str | None = None
    l2: float = 0.0

    @property
    def stem(self):
        """Name of the cell's file."""
        mode = f"-{self.mode}" if self.mode else ""
        l2 = f"-l2-{self.l2:g}" if self.l2 else ""
        return f"{self.system}-{self.setting}-{self.protocol}{mode}-seed-{self.seed}-{self.max_updates}-updates{l2}"

    @property
    def document(self):
        """The recipe as its cell has it."""
        document = json.loads(json.dumps(dataclasses.asdict(self)))
        optional = ("mode", "beside", "adam", "l2")
        return {name: value for name, value in document.items() if value or name not in optional}

    def trained(self, steps, **parts):
        """The recipe that `tfmtr.fit` takes, of a model whose epochs have so many steps."""
        file = FILES.get(self.system, self.system)
        return training.Recipe(
            form="ranking",
            share=normalized((file, self.options)),
            per_pair=file in KNOW_NO_DOMAINS and self.setting in ("MDL", "MDMT"),
            normalizer="groups",
            unknown_rate=0.0,
            embedding_dim=self.embedding_dim,
            batch_size=self.batch_size,
            epochs=-(-self.max_updates // steps),  # whole ones
            patience_updates=self.patience,
            learning_rate=self.learning_rate,
            optimizer=("adam_l2", {"l2": self.l2, **self.adam}),
            seed=self.seed,
            deterministic=False,
            **self.beside,
            **parts,
        )


def system_options(num_experts):
    """Options that are not their file's defaults, by system."""
    ablations = {row.system: {"num_experts": num_experts, **row.options} for row in TABLE_3}
    return {"adatt_sp": {"num_shared_experts": 0}, **ablations}


COMBINED = {OURS: CANDIDATES[CHOSEN], f"{OURS}_before": CANDIDATES[CHOSEN_BEFORE], **READINGS}
# Rows that have no sharing file of their name.
FILES = {"mlp": "shared_bottom", "adatt_sp": "adatt", "as_published": as_published}
FILES |= {row.system: "m3oe" for row in TABLE_3}
FILES |= {system: FILES.get(candidate.share, candidate.share) for system, candidate in COMBINED.items()}
OTHERS = sorted({*components.names("sharing")} - {FILES.get(row.system, row.system) for row in TABLE_2})
# Data set -> its reader, section 3.3's learning rate, and options of systems.
DATASETS = {
    "movielens": (functools.partial(read, movielens_domains), 1e-2, system_options(1)),
    "kuairand": (functools.partial(read, kuairand), 3e-3, system_options(4)),
}
# First digits of data's fingerprints, and what cells have: there means have all digits, of which prepared ones have 9.
FINGERPRINTS = {
    "007edf3f5f1351c4": "6715e98502162800ff54bdebfa2954bdbcd39dfa540dadec1c5bfdf1c92b5277",
    "e9b7bf16b2ac76d7": "3a8547a9405f277f7f0dfbfbaf2fbaf20c68cc1ad2fe54d011ae4e4bf4e04e5f",
    "e43f0bdfc29d5155": "3c65d7d8ee3e18a65030e16a5c99837e98f7250bd0ef6cb14010628a0c947599",
    "767fddae187900e3": "5751bd31b975fe4ad1079e52409699235e06a8cc723cdbc34947853df954b993",
}
L2 = {"movielens": 1e-5, "kuairand": 0.0}  # the published code is for MovieLens


class Fitted(NamedTuple):
    """A trained model, a function from a mask of rows to `{task: scores}`, and figures by epoch.

    The figures are `{"loss": [...], "val_auc": [...], "seconds": [...]}`.
    """

    model: Any
    predict: Any
    history: dict


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
        found = digest.hexdigest()
        return FINGERPRINTS.get(found[:16], found)


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
    """Trains one model of some domains and tasks; returns a `Fitted`."""

    def take(rows):
        x = {name: array[rows] for name, array in data.x.items()}
        if len(domains) == 1:
            x["scenario"] = np.ones_like(x["scenario"])
        return x, {task.column: data.y[task.column][rows] for task in tasks}

    is_ours = np.isin(data.domain, domains)
    x, y = take(is_ours & data.split["train"])
    validation = validation_rows(data, is_ours & data.split["validation"], tasks)
    known_x, known_y = take(validation)
    names = [data.schema.scenario.names[domain - 1] for domain in domains]
    schema = data.schema.replace(
        tasks=[dataclasses.replace(task, mean=float(y[task.column].mean())) for task in tasks],
        scenario=Scenario(["domain"], {(name,): name for name in names}),
    )
    rows = data.domain[validation]

    def judge(model):
        scores = model.predict(known_x, batch_size=recipe.batch_size, verbose=0)
        pairs = itertools.product(tasks, np.unique(rows))
        return -np.mean(
            [roc_auc_score(known_y[t.column][rows == domain], scores[t.name][rows == domain]) for t, domain in pairs]
        )

    keras.utils.clear_session()
    keras.utils.set_random_seed(recipe.seed)  # on which, too, the order of a data set's rows depends
    steps = -(-len(x["scenario"]) // recipe.batch_size)  # of an epoch
    model, history = training.fit(
        recipe.trained(steps, balance=turns(recipe, steps, (known_x, known_y))),
        schema,
        inputs.in_memory(x, y, batch_size=recipe.batch_size, seed=recipe.seed),
        judge=judge,
        callbacks=[Clock()],
    )
    history["val_auc"] = [-value for value in history.pop("judged")]

    def predict(rows):
        scores = model.predict(take(rows)[0], batch_size=recipe.batch_size, verbose=0)
        return {task: values[:, 0] for task, values in scores.items()}

    return Fitted(model, predict, history)


def turns(recipe, steps, validation):
    """The balancer that trains M3oE's fusion weights apart from the others, as the recipe's mode says.

    `steps` are those of an epoch.
    """
    if recipe.mode is None:
        return None
    check_choice("mode", recipe.mode, MODES)
    batches = tf.data.Dataset.from_tensor_slices(validation)
    batches = batches.shuffle(len(validation[0]["scenario"]), seed=recipe.seed).batch(recipe.batch_size)
    every, batch = {"paper": (steps + 1, "next"), "per_step": (1, "same"), "validation": (1, batches)}[recipe.mode]
    return "bilevel", {"every": every, "batch": batch}


def fusion_weights(model):
    """What M3oE has learnt: `{"alpha_d": [...], ...}`, each in (0, 1)."""
    names = [layer.name for layer in model._flatten_layers() if isinstance(layer, FusionWeight)]
    return {name: drawings.learnt(model, name).tolist() for name in names}


def validation_rows(data, validation, tasks):
    """Mask of the validation rows of seen users; of all where a domain and task could not be measured on those."""
    warm = validation & data.is_warm
    domains = np.unique(data.domain[validation])
    for task in tasks:
        cells = measure(data, task, np.zeros(len(warm)), warm)
        if any(cells.get(str(domain), {"reason": "no rows"})["reason"] for domain in domains):
            return validation
    return warm


class Clock(keras.callbacks.Callback):
    """Adds to an epoch's figures the `seconds` of its training, without those of its judge."""

    def on_epoch_begin(self, epoch, logs=None):
        """Starts the clock."""
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        """Reads it."""
        logs["seconds"] = time.perf_counter() - self.start


def run(data, recipe, dataset, folder):
    """One cell, from its line if it is there, and whether it was computed."""
    cell = Cell(folder / RESULTS, f"{dataset}/{recipe.stem}")
    asked = {"fingerprint": data.fingerprint, "recipe": recipe.document}
    if there := cell.known(asked):
        return there, False
    start, histories, num_examples, learnt = time.perf_counter(), {}, 0, {}
    test = data.split["test"]
    scores = {task.name: np.full(len(test), np.nan) for task in data.schema.tasks}
    for domains, tasks in parts(recipe.setting, data.schema.scenario.num_groups, data.schema.tasks):
        model, predict, history = fit(data, recipe, domains, tasks)
        learnt |= fusion_weights(model)
        is_ours = np.isin(data.domain, domains)
        for task, values in predict(test & is_ours).items():
            scores[task][test & is_ours] = values
        histories[f"d{'+'.join(map(str, domains))} {'+'.join(task.name for task in tasks)}"] = history
        num_examples += int((is_ours & data.split["train"]).sum()) * len(history["loss"])
    epochs = [len(history["loss"]) for history in histories.values()]
    document = {
        "dataset": dataset,
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
        "bootstrap": bootstrap(data, scores, test),
        **({"fusion_weights": learnt} if learnt else {}),
        "history": histories,
    }
    cell.write(document)
    return document, True


def measure(data, task, scores, rows):
    """Metrics of one task by domain and pooled."""
    if not rows.any():
        return {}
    return evaluate_task(data.y[task.column][rows], scores[rows], data.domain[rows], data.users[rows], kind=task.kind)


def bootstrap(data, scores, rows):
    """Overall AUC for test users drawn anew, `NUM_SAMPLES` times; the draws are the same in all cells.

    Differences of two models' lists are so the samples of a paired bootstrap over users. Samples in which a domain and
    task has no positive or no negative are `None`.
    """
    users = np.unique(data.users[rows], return_inverse=True)[1]
    curves = [
        weighted_roc_auc(*(values[rows][mine] for values in (data.y[task.column], scores[task.name])), users[mine])
        for task in data.schema.tasks
        for mine in (data.domain[rows] == domain for domain in np.unique(data.domain[rows]))
    ]
    rng, number = np.random.default_rng(0), users.max() + 1
    draws = (np.bincount(rng.integers(number, size=number), minlength=number) for _ in range(NUM_SAMPLES))
    samples = [np.mean([curve(weights) for curve in curves]) for weights in draws]
    return [None if np.isnan(sample) else round(float(sample), 6) for sample in samples]


def chosen_rows(systems, settings):
    """The rows that the command asks for.

    "all" are those of Table 2, "ablations" of Table 3, "others" sharing files of neither, and "readings" M3oE as its
    published code may be read.
    """
    rows = [(row, {"all", row.system}) for row in TABLE_2]
    rows += [(row, {"ablations", row.system}) for row in TABLE_3 if row.name != M3OE]
    rows += [(Ablation(name, name, {}, None, None), {"others", name}) for name in OTHERS]
    rows += [(Ablation(name, name, {}, None, None), {"readings", name}) for name in READINGS]
    rows += [(Ablation(name, name, {}, None, None), {name}) for name in COMBINED if name not in READINGS]
    for system in systems:
        check_choice("models", system, sorted(set().union(*(names for _, names in rows))))
    for setting in settings:
        check_choice("setting", setting, ["all", *SETTINGS])
    return [row for row, names in rows if names & set(systems) and {"all", row.setting} & set(settings)]


def main(dataset, path, *, rows=TABLE_2, seeds=1, protocol="time", folder=HERE, **changes):
    """Computes the missing cells of a data set and returns all that were asked for."""
    read, learning_rate, by_system = DATASETS[dataset]
    data = encode(*read(path, protocol=protocol))
    console = Console(soft_wrap=True)
    wanted = list(itertools.product(range(seeds), rows))
    cells, start, num_computed = [], time.perf_counter(), 0
    for i, (seed, row) in enumerate(wanted, start=1):
        combined = COMBINED.get(row.system)
        parts = combined.parts if combined else {"options": by_system.get(row.system, {})}
        recipe = Recipe(row.system, row.setting, protocol, seed, learning_rate, **parts, **changes)
        cell, is_new = run(data, recipe, dataset, folder)
        cells.append(cell)
        num_computed += is_new
        left = (time.perf_counter() - start) / max(num_computed, 1) * (len(wanted) - i)
        auc, how = text(figures(cell)["overall"], ".2f"), f"epochs {cell['epochs']}" if is_new else "was there"
        console.print(
            f"[{i}/{len(wanted)}] {row.name} ({row.setting}) seed {seed}: overall AUC {auc}, {how}, "
            f"{cell['seconds']:.0f} s, {cell['examples_per_second']:,.0f} examples/s; about {left / 60:.0f} min left",
            markup=False,
            highlight=False,
        )
    return cells


def write_report(folder=HERE):
    """Prints and writes the page of all cells that there are."""
    cells = all_cells(folder)
    parts = [
        "# Tables 2 and 3 of the M3oE paper\n",
        "Overall AUC in percent, split by time, with its deviation over seeds; every cell is below.\n",
        in_short(*(of_study(cells, dataset) for dataset in ("movielens", "kuairand"))) + "\n",
        f"Commands, of which `--mode`, `--protocol` and `--l2` take more values:\n\n{COMMANDS}\n",
        report(cells),
        tried(list(read_cells(folder / SEARCH).values())),
    ]
    document = "\n".join(parts)
    for file in sorted(folder.glob("figure-*.png")):
        document += f"\n![{file.stem}]({file.name})\n"
    document += notes_of(folder)
    (folder / "README.md").write_text(document, encoding="utf-8")
    Console(soft_wrap=True).print(document, markup=False, highlight=False)


def all_cells(folder=HERE):
    """All cells that there are."""
    return list(read_cells(folder / RESULTS).values())


def draw(dataset, path, *, protocol="time", folder=HERE, **changes):
    """Draws Figure 1 from the cells and Figure 3 from M3oE trained with seed 0; returns the files."""
    data = encode(*DATASETS[dataset][0](path, protocol=protocol))
    recipe = recipe_of_m3oe(dataset, protocol=protocol, **changes)
    cells = of_study(all_cells(folder), dataset, protocol=protocol, **changes)
    model = fit(data, recipe, range(1, data.schema.scenario.num_groups + 1), data.schema.tasks).model
    domain = drawings.DOMAINS[dataset]
    rows = np.flatnonzero(data.split["test"] & (data.domain == domain))
    rows = np.random.default_rng(0).permutation(rows)[: drawings.NUM_ROWS]
    x = {name: array[rows] for name, array in data.x.items()}
    return [
        drawings.figure_1(cells, folder / f"figure-1-{dataset}.png"),
        drawings.figure_3(model, x, domain, folder / f"figure-3-{dataset}.png"),
    ]


def recipe_of_m3oe(dataset, **changes):
    """The recipe of M3oE's cell with seed 0."""
    _, learning_rate, by_system = DATASETS[dataset]
    same = {"protocol": "time", "l2": L2[dataset], **changes}
    return Recipe("m3oe", "MDMT", seed=0, learning_rate=learning_rate, options=by_system.get("m3oe", {}), **same)


def of_study(cells, dataset, **changes):
    """The cells of a data set that have its recipe, or that with changes."""
    recipe = recipe_of_m3oe(dataset, **changes)
    return [cell for cell in cells if cell["dataset"] == dataset and is_same_study(cell, recipe)]


def is_same_study(cell, recipe):
    """Whether a cell has the protocol, the budget and the L2 of a recipe."""
    names = ("protocol", "max_updates", "mode", "l2")
    return all(cell["recipe"].get(name) == recipe.document.get(name) for name in names)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="ml-1m.zip, or the folder of KuaiRand-Pure's tables")
    parser.add_argument("--dataset", choices=DATASETS, default="movielens")
    parser.add_argument("--seeds", type=int, default=1)
    systems = dict.fromkeys(row.system for row in (*TABLE_2, *TABLE_3))
    every = ",".join((*systems, *OTHERS, *COMBINED))
    parser.add_argument("--models", default="all", help=f"all, ablations, others, readings, or some of {every}")
    parser.add_argument("--setting", default="all", help="all, or some of " + ",".join(SETTINGS))
    parser.add_argument("--mode", choices=MODES, help="train M3oE's fusion weights apart from the others")
    parser.add_argument("--protocol", choices=PROTOCOLS, default="time")
    parser.add_argument("--max-updates", type=int, default=Recipe.max_updates, help="of each model")
    parser.add_argument("--patience", type=int, default=Recipe.patience, help="updates without a better validation AUC")
    parser.add_argument("--l2", type=float, help="of the optimiser; by default the data set's of the recipe")
    parser.add_argument("--figures", action="store_true", help="draw the figures instead of computing cells")
    parser.add_argument("--report", action="store_true", help="only the report, from the cells that are there")
    arguments = parser.parse_args()
    names = ("max_updates", "patience", "protocol", "mode")
    budget = {name: getattr(arguments, name) for name in names}
    budget["l2"] = L2[arguments.dataset] if arguments.l2 is None else arguments.l2
    if not arguments.report:
        if arguments.data is None:
            parser.error("--data is needed, except with --report")
        if arguments.figures:
            draw(arguments.dataset, arguments.data, **budget)
        else:
            rows = chosen_rows(arguments.models.split(","), arguments.setting.split(","))
            main(arguments.dataset, arguments.data, rows=rows, seeds=arguments.seeds, **budget)
    write_report()
