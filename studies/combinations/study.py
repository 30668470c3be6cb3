"""Does any head work with any sharing file, as a ranking and as a two-tower model? All combinations, one by one.

    python studies/combinations/study.py

Each combination is built with small widths, makes one step on a batch that has some of each label, is exported as a
SavedModel and read again. The page `README.md` says for each pair of head and sharing file whether
losses and gradients were finite and the reloaded predictions equal to 1e-6, and lists what is refused, with the reason.
About 20 minutes on two cores.

Expected: every combination but the refused ones works.
"""

import argparse
import functools
import inspect
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

import keras
import numpy as np
from rich.console import Console
from rich.progress import track

from studies.cells import table
from tfmtr import components, models, training
from tfmtr.schema import Feature, Scenario, Schema, Task

PAGE = HERE / "README.md"
FORMS = ("two_tower", "ranking")
REFUSED = {
    ("in_batch_softmax", "ranking"): "a ranking model has no titles of other rows to choose from",
}


def chain(*levels):
    """A click and what follows it."""
    return [Task("click", mean=0.3), *(Task(name, mean=0.1, after="click") for name in levels)]


# The first of these that a head takes is what it is tried with.
TASKS = [chain("purchase"), chain("cart", "purchase"), chain("view", "cart", "purchase")]


def combinations():
    """All `(head, share, form)` but those refused."""
    return [
        (head, share, form)
        for head in components.names("heads")
        for share in components.names("sharing")
        for form in FORMS
        if (head, form) not in REFUSED
    ]


def covering():
    """Each head and each sharing file at least once, in the two forms by turns."""
    heads, shares = components.names("heads"), components.names("sharing")
    for i in range(max(len(heads), len(shares))):
        head, share, form = heads[i % len(heads)], shares[i % len(shares)], FORMS[(i + 1) % 2]
        yield head, share, "two_tower" if (head, form) in REFUSED else form


@functools.cache
def tasks_of(head):
    """Tasks that the head is made for."""
    for tasks in TASKS:
        try:
            components.find("heads", head)(tasks)
        except ValueError:
            continue
        return tuple(tasks)
    raise AssertionError(f"no tasks for head={head}")


def schema_of(tasks):
    """A schema with every kind of training-only feature that a head reads."""
    return Schema(
        [
            Feature("user", "user", "id", [f"u{i}" for i in range(6)]),
            Feature("user_vector", "user", "vector", width=4),
            Feature("title_vector", "title", "vector", width=5),
            Feature("position", "training", "id", [f"p{i}" for i in range(5)]),
            Feature("elapsed", "training", "number"),
        ],
        tasks,
        Scenario(["territory"], {("t0",): "g0", ("t1",): "g1"}),
    )


def small(name):
    """The sharing function of a name with small widths, as far as it has such options."""
    share = components.find("sharing", name)
    options = inspect.signature(share).parameters
    chosen = {}
    for option, value in {"units": 8, "tower_units": 6, "expert_units": 8}.items():
        if option in options and options[option].default is not None:
            default = options[option].default
            chosen[option] = (value,) * min(len(default), 2) if isinstance(default, tuple) else value
    return functools.partial(share, **chosen)


def build(head, share, form):
    """A compiled model of small widths."""
    keras.utils.set_random_seed(0)
    sizes = {"units": (8, 6)} if form == "two_tower" else {}
    model = getattr(models, form)(
        schema_of(tasks_of(head)), share=small(share), head=head, embedding_dim=3, unknown_rate=0.0, **sizes
    )
    model.compile(keras.optimizers.SGD(1e-2))  # a step of Adam takes twice as long, half of it for its state
    return model


def rows(number=24, seed=0):
    """Inputs of all models, with both scenarios."""
    rng = np.random.default_rng(seed)
    return {
        "user": rng.integers(0, 7, number).astype("int32"),
        "user_vector": rng.normal(size=(number, 4)).astype("float32"),
        "title_vector": rng.normal(size=(number, 5)).astype("float32"),
        "position": rng.integers(0, 6, number).astype("int32"),
        "elapsed": rng.exponential(2.0, number).astype("float32"),
        "title": rng.integers(0, number, number).astype("int32"),
        "scenario": 1 + np.arange(number, dtype="int32") % 2,
    }


def labels(tasks, number=24):
    """Labels with some of each."""
    click = (np.arange(number) % 3 == 0).astype("float32")
    return {"click": click} | {
        task.column: click * (np.arange(number) % 2 == 0).astype("float32") for task in tasks[1:]
    }


def step(model, x, y):
    """Loss and gradients of one step, which is made; nothing is traced."""
    import tensorflow as tf

    x = {name: x[name] for name in model.input}
    with tf.GradientTape() as tape:
        loss = model.compute_loss(x, y, model(x, training=True))
    variables = model.trainable_variables
    gradients = tape.gradient(loss, [variable.value for variable in variables])
    reached = [(g, v) for g, v in zip(gradients, variables, strict=True) if g is not None]
    model.optimizer.apply_gradients(reached)
    return float(loss), [np.asarray(tf.convert_to_tensor(gradient)) for gradient, _ in reached]


def check_step(model, y):
    """Raises an `ArithmeticError` unless the loss and gradients of one step are finite, and there are any."""
    loss, gradients = step(model, rows(), y)
    if not (np.isfinite(loss) and gradients and all(np.isfinite(gradient).all() for gradient in gradients)):
        raise ArithmeticError(f"loss {loss}, {len(gradients)} gradients, not all of them finite")


def check_export(model, folder):
    """Raises an `ArithmeticError` unless the reloaded predictions equal the model's to 1e-6."""
    import tensorflow as tf

    x = {name: value for name, value in rows().items() if name in model.predictor.input}
    expected = model.predictor(x)
    model.predictor.export(folder, verbose=False)
    saved = tf.saved_model.load(folder)  # must outlive its functions
    served = saved.serve(x)
    for task, values in expected.items():
        difference = float(np.max(np.abs(np.asarray(values) - np.asarray(served[task]))))
        if not difference <= 1e-6:
            raise ArithmeticError(f"{task} differs by {difference} after reloading")


def attempt(head, share, form):
    """`"yes"`, or what went wrong."""
    import tensorflow as tf

    keras.utils.clear_session()
    try:
        model = build(head, share, form)
        check_step(model, labels(tasks_of(head)))
        with tempfile.TemporaryDirectory() as folder:
            check_export(model, folder)
    except (ArithmeticError, ValueError, TypeError, tf.errors.OpError) as error:
        return f"no: {str(error).splitlines()[0][:200]}"
    return "yes"


def main(page=PAGE, wanted=None):
    """Tries all combinations and writes the page; returns `{(head, share, form): answer}`."""
    console, found, started = Console(soft_wrap=True), {}, time.perf_counter()
    for combination in track(wanted or combinations(), description="Combinations", console=console):
        found[combination] = attempt(*combination)
        if found[combination] != "yes":
            console.print(*combination, found[combination], markup=False)
    shares = list(dict.fromkeys(share for _, share, _ in found))
    versions = ", ".join(f"{name} {version}" for name, version in training.versions().items())
    rows = []
    for head in dict.fromkeys(head for head, _, _ in found):
        answers = [
            " / ".join("refused" if (head, form) in REFUSED else found.get((head, share, form), "") for form in FORMS)
            for share in shares
        ]
        rows.append([head, *answers])
    lines = [
        "# Every head with every sharing file\n",
        "`python studies/combinations/study.py` says how. A cell says two-tower / ranking: built, one step with finite "
        "loss and gradients, exported, reloaded with predictions equal to 1e-6.\n",
        f"{sum(answer == 'yes' for answer in found.values())} of {len(found)} combinations work; "
        f"{time.strftime('%Y-%m-%d', time.gmtime())}; {(time.perf_counter() - started) / 60:.0f} min; {versions}.\n",
        table(["head", *shares], rows),
        "\nRefused:\n",
        *(f"* {head} as {form}: {reason}." for (head, form), reason in REFUSED.items()),
        "",
    ]
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n".join(lines), encoding="utf-8")
    console.print(lines[2], markup=False)
    return found


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    main()
