"""What models compute on the backend of this process, from given weights: `test_backends.py` compares two backends."""

import sys

import keras
import numpy as np

from studies.combinations import study as combinations
from tfmtr import components, training

STEPS = 3
LEFT_OUT = ("adam", "sparse_adam")  # `adam_l2` takes the step of the one; the other needs TensorFlow


# Adam divides by the size of a gradient: of gradients near 0 it would make the backends' noise as large as a step.
OPTIONS = {"adam_l2": {"l2": 0.1, "epsilon": 1e-2}}


def models():
    """`{name: (model, optimizer)}`: each head and each sharing file in one of the forms, and each optimizer.

    Heads are more than sharing files, so the last models have files that others have, too: these have our optimizers.
    """
    names = [name for name in components.names("optimizers") if name not in LEFT_OUT]
    found = {}
    for head, share, form in reversed(list(combinations.covering())):
        name, optimizer = "sgd", keras.optimizers.SGD(0.05)
        if names:
            name = names.pop()
            optimizer = training.optimizer_of(name)(0.05, **OPTIONS.get(name, {}))
        found[f"{head} {share} {form} {name}"] = combinations.build(head, share, form), optimizer
    return found


def start(models):
    """Weights away from their start, where many are 0: `{name/position: array}`."""
    rng, weights = np.random.default_rng(0), {}
    for name, (model, _) in models.items():
        moved = {id(weight): rng.normal(scale=0.1, size=weight.shape) for weight in model.trainable_weights}
        weights |= {f"{name}/{i}": np.asarray(w) + moved.get(id(w), 0) for i, w in enumerate(model.weights)}
    return weights


def observe(models, weights):
    """`{name/what: array}`: predictions, and the losses of models that are trained from NumPy batches."""
    found = {}
    for number, (name, (model, optimizer)) in enumerate(models.items()):
        model.set_weights([weights[f"{name}/{i}"] for i in range(len(model.weights))])
        model.compile(optimizer)
        found[f"{name}/is_compiled"] = np.asarray(model.jit_compile)
        x = {feature: value for feature, value in combinations.rows().items() if feature in model.input}
        y = combinations.labels(model.schema.tasks)
        if number % 4 == 0:  # a compilation more; the losses are of predictions, too
            found |= {f"{name}/predicted/{task}": values for task, values in model.predict(x, verbose=0).items()}
        # Where training draws random numbers, which differ between backends, the loss without them.
        is_random = any(hasattr(layer, "seed_generator") for layer in model.layers)
        tested = [model.test_on_batch(x, y)] if is_random else []
        trained = [model.train_on_batch(x, y) for _ in range(STEPS)]
        found[f"{name}/loss"] = np.asarray(tested or trained)
        found[f"{name}/after"] = np.asarray(model.test_on_batch(x, y) if is_random else trained[-1])
    return found


def main(weights, found):
    """Builds all models, waits for the end of the input, and observes them with the weights that are there by then."""
    built = models()
    sys.stdin.read()
    with np.load(weights) as given:
        np.savez(found, **observe(built, given))
