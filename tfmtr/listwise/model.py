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
from tfmtr.listwise.parts import Factors, Parts, find_parts
from tfmtr.listwise.past_titles import past_titles
from tfmtr.listwise.residual import Residual, Start
from tfmtr.listwise.rows import list_rows

WIDTH = 128  # of the closed forms' factors
MOST_LOCAL = 16  # coordinates of what territories differ by
EARLIER = 8  # windows whose rows tell what users take next
HALF_LIFE = 4.0  # windows after which a title of a past counts half


@dataclasses.dataclass(frozen=True, eq=False)
class ListModel:
    """What was learnt of the order of lists; `as_of` adds what is known at a moment.

    A title's score for a user is

        model_weight <u, v> + sum_e w_e <P_e, Q_i> + prior_i + prior_territory,i + residual

    with the towers' vectors `u` and `v`, and the folded past `w`: one dot product of two longer vectors.

    Args:
        factors: The `Factors`: how much each of the `Parts` counts.
        residual: The `Residual`.
        titles: Ids of the titles that the residual has factors of.
        territories: Names of the territories that it has vectors of.
        days: Length of a window in days, `None` where the data have no times.
        model_weight: How much the towers' score counts.
    """

    factors: Factors
    residual: Residual
    titles: tuple[str, ...]
    territories: tuple[str, ...]
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
        start = start_of(find_parts(past, window, self.days, earlier), self.factors)
        vectors = np.asarray(data.vectors("title").vectors, "float32")
        place, home = places(past.titles, self.titles), places(past.territories, self.territories)
        own = self.residual
        if vectors.shape[1] != len(own.text_before):
            raise ValueError(
                f"`data` must have title vectors of {len(own.text_before)} numbers, as the run's. Received: "
                f"{vectors.shape[1]} in {data.path}"
            )
        residual = dataclasses.replace(
            own,
            **{name: taken(getattr(own, name), place) for name in ("before", "after", "bias")},
            homes=taken(own.homes, home),
        )
        return Scorer.of(start, residual, vectors, past.territories, self.half_life, self.model_weight)

    def save(self, file: Path) -> None:
        """Writes a `.npz` file."""
        values: dict[str, Any] = {"model_weight": self.model_weight}
        values |= {f"factors/{field.name}": getattr(self.factors, field.name) for field in dataclasses.fields(Factors)}
        values |= {"titles": np.asarray(self.titles, str), "territories": np.asarray(self.territories, str)}
        values |= {"days": np.nan if self.days is None else self.days}
        values |= {f"residual/{field.name}": getattr(self.residual, field.name) for field in FIELDS}
        with Path(file).open("wb") as opened:
            np.savez(opened, **values)

    @classmethod
    def load(cls, file: Path) -> "ListModel":
        """Reads what `save` wrote."""
        with np.load(file) as arrays:
            residual = Residual(**{field.name: arrays[f"residual/{field.name}"] for field in FIELDS})
            shares, power, trends, weights = (arrays[f"factors/{f.name}"] for f in dataclasses.fields(Factors))
            days = float(arrays["days"])
            return cls(
                Factors(shares, float(power), trends, weights),
                residual,
                tuple(arrays["titles"].tolist()),
                tuple(arrays["territories"].tolist()),
                None if np.isnan(days) else days,
                float(arrays["model_weight"]),
            )


FIELDS = dataclasses.fields(Residual)


@dataclasses.dataclass(frozen=True, eq=False)
class Scorer:
    """Factors of titles and territories as of a moment.

    Attributes:
        inputs: Factors of the titles of a past, float32 of shape `(titles, width)`.
        outputs: Coordinates of the titles of a list, float32 of shape `(titles, query width)`: factors, the prior, and
            what territories differ by.
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
    def of(
        cls,
        start: Start,
        residual: Residual,
        vectors: np.ndarray,
        territories: Sequence[str],
        half_life: float | None,
        model_weight: float,
    ) -> "Scorer":
        """Puts together what is known and what was learnt."""
        inputs = np.hstack([start.inputs, residual.inputs(vectors)])
        prior = (start.prior + residual.bias)[:, None]
        outputs = np.hstack([start.outputs, residual.outputs(vectors), prior, start.local])
        width, local_width = start.inputs.shape[1], start.local.shape[1]
        nowhere = np.zeros(outputs.shape[1], "float32")
        nowhere[inputs.shape[1]] = 1.0
        homes = np.tile(nowhere, (len(start.homes), 1))
        homes[:, width : inputs.shape[1]] = residual.homes
        homes[:, len(nowhere) - local_width :] = start.homes
        return cls(inputs, outputs.astype("float32"), homes, nowhere, tuple(territories), half_life, model_weight)

    def queries(self, pasts: sparse.csr_matrix, homes: np.ndarray) -> np.ndarray:
        """Coordinates of users, float32 of shape `(users, query width)`.

        Args:
            pasts: Folded pasts, sparse of shape `(users, titles)`.
            homes: Numbers of territories, integers of shape `(users,)`; -1 for one that is not known.
        """
        homes = np.asarray(homes, int)
        found = np.where((homes >= 0)[:, None], self.homes[np.maximum(homes, 0)], self.nowhere)
        found[:, : self.inputs.shape[1]] += pasts @ self.inputs
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


def start_of(parts: Parts, factors: Factors) -> Start:
    """The parts, added up by their factors."""
    prior, there = parts.prior(factors)
    inputs, outputs = factorise(parts.matrix(factors), WIDTH)
    shape = (parts.everywhere.shape[1], WIDTH)
    all_inputs, all_outputs = np.zeros(shape, "float32"), np.zeros(shape, "float32")
    all_inputs[parts.titles], all_outputs[parts.titles] = inputs, outputs
    if len(there) <= MOST_LOCAL:
        homes, local = np.eye(len(there), dtype="float32"), there.T.astype("float32")
    else:
        homes, local = factorise(there, MOST_LOCAL)
    return Start(all_inputs, all_outputs, prior.astype("float32"), homes, local)


def places(wanted: Sequence[str], known: Sequence[str]) -> np.ndarray:
    """Place of each text among those that are known, -1 where it is none of them."""
    place = {text: number for number, text in enumerate(known)}
    return np.asarray([place.get(text, -1) for text in wanted], int).reshape(len(wanted))


def taken(values: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Rows of an array, 0 where the place is -1."""
    if not len(values):
        return np.zeros((len(place), *values.shape[1:]), "float32")
    found = values[np.maximum(place, 0)]
    found[place < 0] = 0.0
    return found
