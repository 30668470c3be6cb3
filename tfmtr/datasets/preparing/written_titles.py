"""Writes titles.parquet and the title store: upstream vectors, or those made of the titles' text."""

# Ibis says less of its columns than they can do, and of its functions than they take:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false

import dataclasses
from collections.abc import Iterable

import ibis
import numpy as np
import pyarrow as pa

from tfmtr.datasets import stores
from tfmtr.datasets.engines._engine import ROW_GROUP
from tfmtr.datasets.features import as_feature
from tfmtr.datasets.log_tables import check_unique
from tfmtr.datasets.names import inside
from tfmtr.datasets.preparing.checked_log import CheckedLog
from tfmtr.datasets.preparing.planned_features import FeaturePlan
from tfmtr.datasets.preparing.work import Work
from tfmtr.datasets.text import TEXT, TextVectors, encoder_vectors, has_words


@dataclasses.dataclass(frozen=True)
class WrittenTitles:
    """The title store.

    Args:
        vectors: Memory-mapped matrix in the order of the titles.
        width: Of one vector.
        without_text: Number of titles without text, where vectors are made of texts; else `None`.
    """

    vectors: np.ndarray
    width: int
    without_text: int | None


@dataclasses.dataclass(frozen=True)
class VectorSource:
    """Title vectors in the order of the titles.

    Args:
        blocks: Iterable of matrices.
        width: Of one vector.
        without_text: See `WrittenTitles`.
    """

    blocks: Iterable[np.ndarray]
    width: int
    without_text: int | None = None


def write_titles(work: Work, log: CheckedLog, plan: FeaturePlan) -> WrittenTitles:
    """Writes titles.parquet and the title store."""
    titles, folder = log.titles.order_by("title_row"), work.out / "vectors/title"
    work.engine.write(titles.select("title", "name", *plan.columns(titles, "title")), work.out / "titles.parquet")
    names = plan.vector_columns["title"]
    extra = work.engine.to_pyarrow(titles.select("title", *map(inside, names)))
    if work.logs.title_vectors is not None:
        source = upstream_vectors(work, log.titles, extra.num_rows)
    else:
        source = text_vectors(work, log.titles, plan)
    parts = [stores.list_matrix(extra.column(inside(name)).combine_chunks(), name) for name in names]
    ids = extra.select(["title"])
    width = source.width + sum(part.shape[1] for part in parts)
    writer = stores.StoreWriter(folder, extra.num_rows, width, ids.schema)
    for block in source.blocks:
        span = slice(writer.rows, writer.rows + len(block))
        writer.append([np.hstack([block, *(part[span] for part in parts)])])
    writer.append_ids(ids)
    writer.close()
    return WrittenTitles(np.load(folder / "vectors.npy", mmap_mode="r"), width, source.without_text)


def upstream_vectors(work: Work, titles: ibis.Table, count: int) -> VectorSource:
    """The vectors that the log's own store has of its titles, so many of them."""
    vectors, ids = stores.open_store(work.engine, work.logs.title_vectors, "title_vectors", "title")
    check_unique(work.engine, ids, "title", "title_vectors")
    rows = titles.select("title", "title_row").left_join(ids, "title").order_by("title_row")
    rows = work.engine.to_pyarrow(rows.select("title", "store_row"))
    places = stores.array_of(rows, "store_row")
    lacking = rows.column("title").filter(pa.array(places < 0))
    stores.check_vectors_found(len(lacking), lacking[:3].to_pylist(), "title", work.options["missing_vectors"])
    work.warn(len(lacking), "titles have no vector and got the zero vector")
    chunks = (places[begin : begin + ROW_GROUP] for begin in range(0, count, ROW_GROUP))
    return VectorSource((stores.gather(vectors, chunk) for chunk in chunks), vectors.shape[1])


def text_vectors(work: Work, titles: ibis.Table, plan: FeaturePlan) -> VectorSource:
    """Vectors of the titles' text, by TF-IDF or by an encoder."""
    ids, texts, nameless = title_texts(work, titles, plan)
    if work.options["text_encoder"] is not None:
        work.warn(sum(not has_words([text]) for text in texts), "titles have no text, and all of them the same vector")
        blocks = encoder_vectors(texts, work.options["text_encoder"])
        first = next(blocks)
        return VectorSource((block for part in ([first], blocks) for block in part), first.shape[1])
    fitted = work.like and work.like.path / TEXT
    if fitted and fitted.is_file():
        fitted = TextVectors.load(fitted)
    else:
        fitted = TextVectors.fit(texts, seed=work.options["seed"])
    fitted.save(work.out / TEXT)
    unknown = fitted.count_unknown(texts)
    what = "text and no vectors" if unknown == len(ids) else "word that is known, and no vector"
    work.warn(unknown, f"titles have no {what}; each got a random vector of its own")
    work.warn(len(nameless), "titles have no name; half of their vector is random and their own")
    return VectorSource([fitted(texts, ids, nameless)], fitted.width, without_text=unknown)


def title_texts(work: Work, titles: ibis.Table, plan: FeaturePlan) -> tuple[list[str], list[str], list[int]]:
    """What vectors are made of.

    Returns:
        `(ids, texts, nameless)` in the order of the titles: of each its name (unless it is just the id), text and
        list columns in one text, and the places of those that have text but no name, where others have one.
    """
    parts = [(titles.name != titles.title).ifelse(titles.name, "")]
    for feature in plan.features["title"]:
        if feature.kind != "number":
            column = as_feature(titles, feature)
            parts.append(column.join(" ") if feature.kind == "set" else column)
    texts = {"text": ibis.literal(" ").join(parts), "own": parts[0]}
    table = work.engine.to_pyarrow(titles.select("title", "title_row", **texts).order_by("title_row"))
    ids, texts, names = (table.column(name).to_pylist() for name in ("title", "text", "own"))
    has_name = [has_words([name or ""]) for name in names]
    nameless = [row for row, text in enumerate(texts) if not has_name[row] and has_words([text or ""])]
    return ids, texts, nameless if any(has_name) else []
