"""Recall and speed of the title indexes, against NumPy and against other libraries' indexes.

    pip install -e '.[dev,peers]' -c constraints.txt
    python benchmarks/retrieval.py --data path/to/data

Vectors are MovieLens-1M's titles' texts and XMarket's items by truncated SVD (queries: its users), where `--data` has
them, and clustered ones of each of `--sizes`; they are 128 wide, queries are held out. Finds 100 titles for each query,
with and without a filter that keeps 1 % of the titles, for 1 and for 128 queries at once. Every cell runs in a process
of its own on all cores: recall@100 against NumPy's exact search, queries a second, seconds to build, growth of the
process's anonymous memory by the index and the searches. Where an index has search parameters, they are the fastest of
a small grid with a recall of at least .95 on other queries, or those of the best recall.

Prints a table and writes `benchmarks/results/retrieval.json` cell by cell: what is there is not measured again.
"""

import argparse
import importlib.metadata
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from rich.console import Console
from rich.table import Table

RESULT = Path("benchmarks/results/retrieval.json")
WIDTH, K, GOAL, SHARE = 128, 100, 0.95, 0.01
SLOW = 10  # queries a second
NUM_QUERIES, NUM_TUNING = 512, 128
CORES = os.cpu_count()
FILTERS = {  # what an engine does with a filter
    "exact": "before the search",
    "streaming": "before the search",
    "scann": "within the search",
    "numpy": "before the search",
    "faiss_flat": "its own",
    "faiss_ivf": "its own",
    "hnswlib": "its own",
    "usearch": "after an over-fetch",
}


def clustered(size, seed=0):
    """A mixture of normal distributions whose weights differ, and queries of the same."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(min(4000, max(size // 25, 2)), WIDTH)).astype("float32")
    weights = rng.pareto(1.5, len(centres)) + 0.1
    rows = rng.choice(len(centres), size + NUM_QUERIES + NUM_TUNING, p=weights / weights.sum())
    values = centres[rows] + rng.normal(scale=0.7, size=(len(rows), WIDTH)).astype("float32")
    return values[:size], values[size:]


def movielens(data):
    """Vectors of titles' texts; some of the titles are the queries."""
    import pyarrow.parquet as pq

    from tfmtr.datasets.text import text_vectors

    table = pq.read_table(data / "movielens-1m" / "movies.parquet").to_pandas()
    texts = [" ".join(str(value) for value in row[1:]).replace("|", " ") for row in table.itertuples(index=False)]
    vectors = np.random.default_rng(0).permutation(text_vectors(texts, width=WIDTH))
    return vectors[NUM_QUERIES + NUM_TUNING :], vectors[: NUM_QUERIES + NUM_TUNING]


def xmarket(data):
    """Items' vectors and, as queries, users' from a truncated SVD of who rated what."""
    import pandas as pd
    from scipy.sparse import csr_matrix
    from sklearn.decomposition import TruncatedSVD

    table = pd.read_parquet(data / "xmarket-electronics" / "ratings_5core.parquet")
    user, item = (pd.factorize(table[name])[0] for name in ("userId", "itemId"))
    svd = TruncatedSVD(WIDTH, random_state=0)
    users = svd.fit_transform(csr_matrix((np.ones(len(table), "float32"), (user, item)))).astype("float32")
    queries = np.random.default_rng(0).permutation(users)[: NUM_QUERIES + NUM_TUNING]
    return np.ascontiguousarray(svd.components_.T, np.float32), queries


def write_data(folder, vectors, queries):
    """Vectors, queries, the filter and the right answers as files."""
    folder.mkdir(parents=True)
    mask = np.random.default_rng(1).permutation(len(vectors)) < round(SHARE * len(vectors))
    arrays = {"vectors": vectors, "queries": queries, "mask": mask}
    for name, allowed in (("all", np.ones_like(mask)), ("filtered", mask)):
        arrays[f"truth_{name}"] = np.concatenate([by_numpy(vectors, q, allowed) for q in np.split(queries, 20)])
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)


def by_numpy(vectors, queries, allowed):
    """The best titles, int64 of shape `(queries, K)`, -1 where there are no more."""
    columns = None if allowed.all() else np.flatnonzero(allowed)
    scores = queries @ (vectors if columns is None else vectors[columns]).T
    k = min(K, scores.shape[1])
    index = np.argpartition(scores, scores.shape[1] - k, axis=1)[:, scores.shape[1] - k :]
    order = np.argsort(-np.take_along_axis(scores, index, axis=1), axis=1)
    index = np.take_along_axis(index, order, axis=1)
    return pad(index if columns is None else columns[index])


def pad(index):
    """`K` columns, the missing ones -1."""
    return np.pad(index, [(0, 0), (0, K - index.shape[1])], constant_values=-1)


# An engine builds its index from vectors and returns `search(queries, allowed, **parameters)` and a grid of parameters.


def numpy(vectors, folder):
    """Matrix product, then argpartition."""
    vectors = np.array(vectors)
    return lambda queries, allowed: by_numpy(vectors, queries, allowed), {}


def ours(make, parameters=()):
    """One of this package's indexes, called through `tf.function`."""

    def engine(vectors, folder):
        import tensorflow as tf

        from tfmtr.retrieval.catalogue import Catalogue

        index = make(Catalogue([str(i) for i in range(len(vectors))], {}), vectors, folder)
        functions, masks = {}, {}

        def search(queries, allowed, **values):
            key = tuple(values.items())
            if key not in functions:
                for name, value in values.items():
                    setattr(index, name, value)
                functions[key] = tf.function(lambda *inputs: index(*inputs), reduce_retracing=True)
            if (id(allowed), len(queries)) not in masks:
                masks.clear()
                masks[id(allowed), len(queries)] = tf.constant(np.tile(allowed, (len(queries), 1)))
            k = np.full(len(queries), min(K, len(vectors)), "int32")
            found = functions[key](tf.constant(queries), tf.constant(k), masks[id(allowed), len(queries)])
            return pad(np.where(found["scores"].numpy() > -np.inf, found["index"].numpy(), -1))

        leaves = round(len(vectors) ** 0.5)
        grid = {"leaves_to_search": [max(1, leaves // part) for part in (64, 32, 16, 8, 4, 2)], "reorder": [200, 500]}
        return search, grid if parameters else {}

    return engine


def make_exact(catalogue, vectors, folder):
    """`ExactIndex`."""
    from tfmtr.retrieval.indexes.exact import ExactIndex

    return ExactIndex(catalogue, vectors)


def make_streaming(catalogue, vectors, folder):
    """`StreamingIndex` of a file."""
    from tfmtr.retrieval.indexes.streaming import StreamingIndex

    vectors.tofile(folder / "vectors.float32")
    return StreamingIndex(catalogue, folder / "vectors.float32")


def make_scann(catalogue, vectors, folder):
    """`ScannIndex`."""
    from tfmtr.retrieval.indexes.scann import ScannIndex

    return ScannIndex(catalogue, vectors)


def faiss_flat(vectors, folder):
    """Faiss's exact index."""
    import faiss

    index = faiss.IndexFlatIP(WIDTH)
    index.add(vectors)
    return lambda queries, allowed: by_faiss(index, faiss.SearchParameters, queries, allowed), {}


def faiss_ivf(vectors, folder):
    """Faiss's inverted file."""
    import faiss

    lists = round(len(vectors) ** 0.5)
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(WIDTH), WIDTH, lists, faiss.METRIC_INNER_PRODUCT)
    index.train(np.random.default_rng(0).choice(vectors, min(len(vectors), 100 * lists), replace=False))
    index.add(vectors)

    def search(queries, allowed, nprobe):
        return by_faiss(index, faiss.SearchParametersIVF, queries, allowed, nprobe=nprobe)

    return search, {"nprobe": [max(1, lists // part) for part in (64, 32, 16, 8, 4, 2, 1)]}


def by_faiss(index, parameters, queries, allowed, **values):
    """Faiss's search, with its selector where there is a filter."""
    import faiss

    if not allowed.all():
        bits = np.packbits(allowed, bitorder="little")
        values["sel"] = faiss.IDSelectorBitmap(len(allowed), faiss.swig_ptr(bits))
    return index.search(queries, K, params=parameters(**values))[1]


def hnswlib(vectors, folder):
    """The graph of hnswlib."""
    import hnswlib as library

    index = library.Index(space="ip", dim=WIDTH)
    index.init_index(max_elements=len(vectors), M=16, ef_construction=200, random_seed=0)
    index.add_items(vectors, num_threads=CORES)

    def search(queries, allowed, ef):
        index.set_ef(max(ef, K))
        if allowed.all():
            return index.knn_query(queries, k=K, num_threads=CORES)[0].astype("int64")
        return np.stack([filtered(query, allowed) for query in queries])

    def filtered(query, allowed):
        k = min(K, np.count_nonzero(allowed))
        while k:
            try:  # its calls into Python want one thread
                found = index.knn_query(query, k=k, num_threads=1, filter=lambda i: bool(allowed[i]))[0]
                return pad(found.astype("int64"))[0]
            except RuntimeError:  # fewer than k were met, which is an error to it
                k //= 2
        return np.full(K, -1)

    return search, {"ef": [100, 200, 400, 800, 1600, 3200]}


def usearch(vectors, folder):
    """USearch's graph."""
    from usearch.index import Index

    index = Index(ndim=WIDTH, metric="ip", dtype="f32", connectivity=16, expansion_add=200)
    index.add(np.arange(len(vectors)), vectors, threads=CORES)

    def search(queries, allowed, ef):
        count = K if allowed.all() else min(len(allowed), round(1.2 * K / SHARE))
        index.expansion_search = max(ef, count)
        keys = np.asarray(index.search(queries, count, threads=CORES).keys).reshape(len(queries), -1).astype("int64")
        rows = [row[allowed[row]][:K] for row in keys]
        return np.stack([np.pad(row, (0, K - len(row)), constant_values=-1) for row in rows])

    return search, {"ef": [100, 200, 400, 800, 1600, 3200]}


ENGINES = {
    "numpy": numpy,
    "exact": ours(make_exact),
    "streaming": ours(make_streaming),
    "scann": ours(make_scann, ("leaves_to_search", "reorder")),
    "faiss_flat": faiss_flat,
    "faiss_ivf": faiss_ivf,
    "hnswlib": hnswlib,
    "usearch": usearch,
}


def measure(engine, folder, seconds):
    """Builds and searches in this process; returns `{"all" | "filtered": cell}`."""
    vectors, queries, mask = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("vectors", "queries", "mask"))
    queries, mask, cells = np.array(queries), np.array(mask), {}
    with tempfile.TemporaryDirectory() as scratch:  # imports and thread pools are no part of the index
        search, grid = ENGINES[engine](np.array(vectors[:500]), Path(scratch))
        search(queries[:128], mask[:500], **{name: values[0] for name, values in grid.items()})
    before, started = anonymous_memory(), time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        search, grid = ENGINES[engine](vectors, Path(scratch))
        build = time.perf_counter() - started
        for name, allowed in (("all", np.ones_like(mask)), ("filtered", mask)):
            truth = np.load(folder / f"truth_{name}.npy")
            tried = []
            for values in itertools.product(*grid.values()):
                parameters = dict(zip(grid, values, strict=True))
                found = search(queries[:NUM_TUNING], allowed, **parameters)
                speed = per_second(search, queries[:NUM_TUNING], allowed, parameters, 128, seconds / 10)
                tried.append((recall(found, truth[:NUM_TUNING]), speed, parameters))
                # A single parameter is tried from fast to slow, until it is good, or of no use.
                if len(grid) == 1 and (tried[-1][0] >= GOAL or speed < SLOW):
                    break
            good = [entry for entry in tried if entry[0] >= GOAL]
            parameters = (max(good, key=lambda e: e[1]) if good else max(tried, key=lambda e: e[0]))[2]
            rest = queries[NUM_TUNING:]
            found = np.concatenate([search(part, allowed, **parameters) for part in np.split(rest, 4)])
            cells[name] = {
                "recall": round(recall(found, truth[NUM_TUNING:]), 4),
                "per_second_1": round(per_second(search, rest, allowed, parameters, 1, seconds), 2),
                "per_second_128": round(per_second(search, rest, allowed, parameters, 128, seconds), 2),
                "build_seconds": round(build, 2),
                "megabytes": round(anonymous_memory() - before, 1),
                "parameters": parameters,
            }
    return cells


def recall(found, truth):
    """Share of the right titles that were found."""
    right = sum(len(np.intersect1d(f, t[t >= 0])) for f, t in zip(found, truth, strict=True))
    return float(right / max(1, np.count_nonzero(truth >= 0)))


def per_second(search, queries, allowed, parameters, batch, seconds):
    """Queries a second, from the median time of a call."""
    times, end = [], time.perf_counter() + seconds
    for start in itertools.cycle(range(0, len(queries) - batch + 1, batch)):
        part = queries[start : start + batch]
        started = time.perf_counter()
        search(part, allowed, **parameters)
        times.append(time.perf_counter() - started)
        if len(times) > 3 and time.perf_counter() > end:
            return batch / float(np.median(times[1:]))


def anonymous_memory():
    """RssAnon of this process in MB."""
    (line,) = (s for s in Path("/proc/self/status").read_text().splitlines() if s.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


def sources(sizes, data):
    """`{name: function that returns vectors and queries}`."""
    found = {f"clustered {size:,}": (lambda size=size: clustered(size)) for size in sizes}
    if data is not None:
        found = {"MovieLens texts": lambda: movielens(data), "XMarket SVD": lambda: xmarket(data)} | found
    return found


def main(*, sizes=(10_000, 100_000, 1_000_000), engines=tuple(ENGINES), data=None, seconds=3.0, out=RESULT):
    """Measures what is not in `out` yet, prints and writes; returns the document."""
    from tfmtr import training

    document = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {"results": {}}
    packages = ("scann", "faiss-cpu", "hnswlib", "usearch")
    document |= {
        "command": "python benchmarks/retrieval.py",
        "k": K,
        "machine": {
            "cores": CORES,
            "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30),
        },
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "versions": training.versions() | {name: version(name) for name in packages},
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    results = document["results"]
    for name, make in sources(sizes, data).items():
        missing = [engine for engine in engines if f"{name}, {engine}, filtered" not in results]
        with tempfile.TemporaryDirectory() as folder:
            if missing:
                write_data(Path(folder) / "data", *make())
            for engine in missing:
                command = [sys.executable, __file__, "--cell", engine, str(Path(folder) / "data"), str(seconds)]
                found = subprocess.run(
                    command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
                )
                for kind, cell in json.loads(found.stdout.splitlines()[-1]).items():
                    results[f"{name}, {engine}, {kind}"] = cell
                out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
                print(name, engine, results[f"{name}, {engine}, all"], flush=True)
    print_results(document)
    return document


def version(package):
    """Version of an installed package, or `None`."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def print_results(document):
    """One table, and what became of the goals."""
    table = Table(
        "vectors", "index", "filter", title=f"Top {K} of {WIDTH}-wide vectors, {document['machine']['cores']} cores"
    )
    for column in ("recall", "queries/s, 1", "queries/s, 128", "build, s", "MB", "search parameters"):
        table.add_column(column, justify="right")
    results = document["results"]
    for name, cell in results.items():
        data, engine, kind = name.rsplit(", ", 2)
        speeds = (f"{cell[f'per_second_{n}']:,.0f}" for n in (1, 128))
        text = " ".join(f"{key}={value}" for key, value in cell["parameters"].items())
        row = f"{cell['recall']:.3f}", *speeds, f"{cell['build_seconds']:.1f}", f"{cell['megabytes']:,.0f}", text
        table.add_row(data, engine, "none" if kind == "all" else f"1 %, {FILTERS[engine]}", *row)
    Console(width=160).print(table)
    for name in (n for n in results if n.endswith(", exact, all")):
        for ours, theirs, text in (
            ("exact", "numpy", "goal: at least 0.77"),
            ("scann", "exact", "at 1 million: at least 5"),
        ):
            pair = [results.get(name.replace(", exact,", f", {engine},")) for engine in (ours, theirs)]
            if all(pair):
                ratios = (pair[0][f"per_second_{n}"] / pair[1][f"per_second_{n}"] for n in (1, 128))
                data, both = name.rsplit(", ", 2)[0], " and ".join(f"{ratio:.2f}" for ratio in ratios)
                print(f"{data}: {ours} to {theirs}: {both} ({text})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", default=[10_000, 100_000, 1_000_000], help="clustered vectors")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES), help="only these")
    parser.add_argument("--data", type=Path, help="folder of movielens-1m/ and xmarket-electronics/")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--out", type=Path, default=RESULT, help="where the result is")
    parser.add_argument("--cell", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cell:
        engine, folder, seconds = arguments.cell
        print(json.dumps(measure(engine, Path(folder), float(seconds))))
    else:
        main(**{name: value for name, value in vars(arguments).items() if name != "cell"})
