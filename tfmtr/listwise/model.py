"""What a run keeps of how lists are ordered, and what it makes of it as of a moment."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from tfmtr.datasets.dataset import Dataset
from tfmtr.evaluation.past import Past
from tfmtr.listwise.collaborative import factorise
from tfmtr.listwise.parts import SCORES, Factors, Parts, activity_of, find_parts
from tfmtr.listwise.past_titles import past_titles
from tfmtr.listwise.prior import SPEEDS
from tfmtr.listwise.rows import list_rows
from tfmtr.listwise.texts import unit

WIDTH = 192  # of the factors of what pasts say
MOST_LOCAL = 16  # coordinates of what territories differ by
EARLIER = 8  # windows whose rows tell what users take next
HALF_LIFE = 4.0  # windows after which a title of a past counts half


@dataclasses.dataclass(frozen=True, eq=False)
class ListModel:
    """What was learnt of the order of lists; `as_of` adds what is known at a moment.

    A title's score for a user is

        model_weight <u, v> + sum_e w_e <P_e, Q_i> + prior_i + prior_territory,i + n lean_i

    with the towers' vectors `u` and `v`, the folded past `w`, and the user's activity `n`: one dot product of two
    longer vectors.

    Args:
        factors: The `Factors`: how much each of the `Parts` counts.
        days: Length of a window in days, `None` where the data have no times.
        model_weight: How much the towers' score counts.
    """

    factors: Factors
    days: float | None
    model_weight: float

    @property
    def half_life(self) -> float | None:
        """Days after which a title of a past counts half."""
        return None if self.days is None else HALF_LIFE * self.days

    def as_of(self, data: Dataset, past: Past, window: int) -> "Scorer":
        """The `Scorer` of a window: what was learnt, with what is known before the window.

        Args:
            data: A `Dataset`.
            past: Its `Past`.
            window: Number of the window, `data.next_window` for what is served.
        """
        earlier = [list_rows(past, number, self.half_life) for number in windows_before(past, window)]
        parts = find_parts(past, window, self.days, earlier, unit(data.vectors("title").vectors))
        return Scorer.of(parts, self, past.territories)

    def save(self, file: Path) -> None:
        """Writes a `.npz` file."""
        values: dict[str, Any] = {"model_weight": self.model_weight, "days": np.nan if self.days is None else self.days}
        values |= {f"factors/{field.name}": getattr(self.factors, field.name) for field in dataclasses.fields(Factors)}
        with Path(file).open("wb") as opened:
            np.savez(opened, **values)

    @classmethod
    def load(cls, file: Path) -> "ListModel":
        """Reads what `save` wrote.

        Raises:
            ValueError: If it is of other parts.
        """
        with np.load(file) as arrays:
            values = {name: arrays[name] for name in arrays.files}
        shares, power, trends, activity, weights = (
            values[f"factors/{field.name}"] for field in dataclasses.fields(Factors)
        )
        days = float(values["days"])
        speeds = 1 if np.isnan(days) else len(SPEEDS)
        if weights.shape != (len(SCORES),) or shares.shape != (2, speeds):
            raise ValueError(
                f"`{file}` must have factors of {len(SCORES)} scores and {speeds} speeds, as this version writes it; "
                f"train the run again. Received: {len(weights)} and {shares.shape[1]}"
            )
        factors = Factors(shares, float(power), trends, activity, weights)
        return cls(factors, None if np.isnan(days) else days, float(values["model_weight"]))


@dataclasses.dataclass(frozen=True, eq=False)
class Scorer:
    """Factors of titles and territories as of a moment.

    Attributes:
        inputs: Factors of the titles of a past, float32 of shape `(titles, width)`.
        outputs: Coordinates of the titles of a list, float32 of shape `(titles, query width)`: factors, the prior, what
            activity is multiplied by, and what territories differ by.
        homes: Coordinates of territories, float32 of shape `(territories, query width)`, which are added to a query.
        nowhere: The same of a territory that is not known, shape `(query width,)`.
        territories: Their names.
        half_life: Days after which a title of a past counts half, `None` for no decay.
        model_weight: How much the towers' score counts.
    """

    inputs: np.ndarray
    outputs: np.ndarray
    homes: np.ndarray
    nowhere: np.ndarray
    territories: tuple[str, ...]
    half_life: float | None
    model_weight: float

    @classmethod
    def of(cls, parts: Parts, model: ListModel, territories: Sequence[str]) -> "Scorer":
        """Adds the parts up by what was learnt."""
        prior, there = parts.prior(model.factors)
        inputs, factors = parts.factorised(model.factors, WIDTH)
        if len(there) <= MOST_LOCAL:
            local_homes, local = np.eye(len(there), dtype="float32"), there.T
        else:
            local_homes, local = factorise(there, MOST_LOCAL)
        lean = parts.lean(model.factors)
        outputs = np.hstack([factors, prior[:, None], lean[:, None], local]).astype("float32")
        nowhere = np.zeros(outputs.shape[1], "float32")
        nowhere[WIDTH] = 1.0
        homes = np.tile(nowhere, (len(there), 1))
        homes[:, WIDTH + 2 :] = local_homes
        return cls(inputs, outputs, homes, nowhere, tuple(territories), model.half_life, model.model_weight)

    def queries(self, pasts: sparse.csr_matrix, homes: np.ndarray) -> np.ndarray:
        """Coordinates of users, float32 of shape `(users, query width)`.

        Args:
            pasts: Folded pasts, sparse of shape `(users, titles)`.
            homes: Numbers of territories, integers of shape `(users,)`; -1 for one that is not known.
        """
        homes = np.asarray(homes, int)
        found = np.where((homes >= 0)[:, None], self.homes[np.maximum(homes, 0)], self.nowhere)
        found[:, : self.inputs.shape[1]] += pasts @ self.inputs
        found[:, self.inputs.shape[1] + 1] += activity_of(pasts)
        return found.astype("float32")

    def queries_of(self, past: Past, users: np.ndarray, window: int) -> np.ndarray:
        """The same of users by their numbers, -1 for one who is not known, with their pasts before a window."""
        users, place = np.unique(users, return_inverse=True)
        homes = np.where(users >= 0, past.homes[np.maximum(users, 0)], -1)
        return self.queries(past_titles(past, users, window, self.half_life), homes)[place]

    def join_titles(self, vectors: np.ndarray) -> np.ndarray:
        """Title vectors of the towers, with the coordinates of the titles beside them."""
        return np.hstack([vectors, self.outputs]).astype("float32")

    def join_queries(self, queries: np.ndarray, own: np.ndarray) -> np.ndarray:
        """Query vectors of the towers, weighted, with `queries` of the users beside them."""
        return np.hstack([self.model_weight * np.asarray(queries, "float32"), own]).astype("float32")


def windows_before(past: Past, window: int) -> list[int]:
    """Numbers of the last windows before one, oldest first."""
    return sorted(number for number in past.starts if number < window)[-EARLIER:]
