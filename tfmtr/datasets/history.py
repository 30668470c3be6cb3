"""User vectors from history: the mean vector of the last titles that a user had before a window."""

# Ibis says less of its columns than they can do, and of its functions than they take:
# pyright: reportArgumentType=false, reportOperatorIssue=false

from collections.abc import Iterator, Sequence

import ibis
import numpy as np
import scipy.sparse

from tfmtr.datasets.discovery import Window

MAX_TITLES = 50
CHUNK_ROWS = 65_536


def history_states(users: ibis.Table, events: ibis.Table, windows: Sequence[Window]) -> ibis.Table:
    """The windows before which a user's history changed; between them it is the same.

    Args:
        users: Table `user`, `bucket`.
        events: Table `user`, `window`, `bucket`, events only.
        windows: List of `Window`.

    Returns:
        Table `user`, `bucket`, `window` (the first window that sees this history; one after the last window for
        serving), `next_window` (the first that sees another one, or null) and `row` (0, 1, ... in the bucket, by user
        and window).
    """
    first, last = windows[0].number, windows[-1].number + 1
    start = users.select("user", "bucket").mutate(window=ibis.literal(first, "int64"))
    seen = events.semi_join(users, "user").filter(events.window < last)
    changes = seen.select("user", "bucket", window=ibis.greatest(seen.window + 1, first).cast("int64"))
    states = start.union(changes, distinct=True)
    return states.mutate(
        next_window=states.window.lead().over(group_by="user", order_by="window"),
        row=ibis.row_number().over(group_by="bucket", order_by=("user", "window")),
    )


def recent_titles(states: ibis.Table, events: ibis.Table, titles: ibis.Table) -> ibis.Table:
    """The last `MAX_TITLES` different titles that a user had before the window of each state.

    Args:
        states: See `history_states`.
        events: Table `user`, `title`, `time`, `window`, events only.
        titles: Table `title`, `title_row`.

    Returns:
        Table `row` (of the state) and `title_row`, sorted by both.
    """
    pairs = events.group_by("user", "title", "window").aggregate(time=events.time.max())
    pairs = pairs.rename(seen_in="window").inner_join(states.select("user", "window", "row"), "user")
    pairs = pairs.filter(pairs.seen_in < pairs.window)
    pairs = pairs.group_by("row", "title").aggregate(time=pairs.time.max())
    order = ibis.row_number().over(group_by="row", order_by=(pairs.time.desc(), pairs.title))
    pairs = pairs.mutate(order=order).filter(lambda t: t.order < MAX_TITLES)
    return (
        pairs.inner_join(titles.select("title", "title_row"), "title")
        .select("row", "title_row")
        .order_by("row", "title_row")
    )


def mean_vectors(
    rows: np.ndarray, title_rows: np.ndarray, title_vectors: np.ndarray, count: int
) -> Iterator[np.ndarray]:
    """Yields the mean title vectors of the rows `0 .. count - 1`, in chunks; zero where there is no title.

    Args:
        rows: Sorted integer array of shape `(pairs,)`.
        title_rows: Integer array of shape `(pairs,)`.
        title_vectors: Float matrix of shape `(titles, width)`.
        count: Number of rows.

    Returns:
        Iterator of float32 arrays of shape `(chunk, width)`.

    Example:
    >>> vectors = np.array([[1.0, 0.0], [0.0, 1.0]], "float32")
    >>> list(mean_vectors(np.array([0, 0]), np.array([0, 1]), vectors, 2))
    [array([[0.5, 0.5], [0. , 0. ]], dtype=float32)]
    """
    starts = np.searchsorted(rows, np.arange(count + 1))
    for begin in range(0, count, CHUNK_ROWS):
        end = min(begin + CHUNK_ROWS, count)
        pointers = starts[begin : end + 1]
        columns = title_rows[pointers[0] : pointers[-1]]
        sizes = np.diff(pointers)
        weights = np.repeat(1.0 / np.maximum(sizes, 1), sizes).astype("float32")
        shape = (end - begin, len(title_vectors))
        yield np.asarray(
            scipy.sparse.csr_matrix((weights, columns, pointers - pointers[0]), shape=shape) @ title_vectors
        )
