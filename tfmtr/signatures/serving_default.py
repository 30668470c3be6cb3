"""Scores."""

import keras

from tfmtr.signatures._signature import Served, Signature, specs


def serving_default(served: Served, *, score: keras.Model) -> Signature:
    """Features of users and titles, row by row -> the tasks' probabilities, by name.

    They are calibrated if the run is (`tfmtr calibrate`).
    """
    return Signature(lambda raw: score(raw), specs(served.rows or {**served.users, **served.titles}))
