"""Latency and throughput of the embedded server against calling the model in the process.

    python benchmarks/serving.py

Two two-tower models: "small" has the demo's shape (user and title vectors 64 wide, towers 512 and 128, an index of
10,000 titles), "large" a service's (user vectors 512 wide, title vectors 768, towers 1024, 512 and 128, an index of a
million titles). The server runs in a process of its own, clients in another, all on this machine. For 1, 8 and 64
clients, over gRPC and REST, with batching off and on: Predict with 1 and with 128 rows, and `recommend` for one user.
Prints p50 and p99 milliseconds and requests a second beside the same call in process, one after the other, and in
batches of 64 requests at once, and beside a gRPC server that does nothing (the limit of Python's gRPC here), then what
became of the goals, and writes `benchmarks/results/serving.json` model by model.
"""

import argparse
import asyncio
import dataclasses
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

RESULT = Path("benchmarks/results/serving.json")
REQUESTS = {"predict 1": 1, "predict 128": 128, "recommend": 1}
# A request waits up to 2 ms for others; one thread for batches leaves the other core to the calls.
BATCHING = "max_batch_size { value: 8192 } batch_timeout_micros { value: 2000 } num_batch_threads { value: 1 }"


@dataclasses.dataclass(frozen=True)
class Size:
    """A model's widths and the titles of its index."""

    user: int
    title: int
    units: tuple
    titles: int


SIZES = {"small": Size(64, 64, (512, 128), 10_000), "large": Size(512, 768, (1024, 512, 128), 1_000_000)}


def make_model(folder, size):
    """Exports a model with random weights and returns its base path."""
    import keras
    import tensorflow as tf

    from tfmtr import models
    from tfmtr.encoders.raw import look_up, raw_inputs
    from tfmtr.retrieval.catalogue import Catalogue
    from tfmtr.retrieval.indexes.exact import ExactIndex
    from tfmtr.retrieval.recommender import OPTIONS, REQUEST, Recommender
    from tfmtr.schema import Feature, Scenario, Schema, Task

    groups = {(f"t{i:02}",): f"g{i % 4}" for i in range(24)}
    features = [Feature(f"{role}_vector", role, "vector", width=getattr(size, role)) for role in ("user", "title")]
    schema = Schema(features, [Task("click")], Scenario(["territory"], groups))
    model = models.two_tower(schema, share="territory_branches", units=size.units)
    users, titles = raw_inputs(schema, "user", scenario=True), raw_inputs(schema, "title")
    encoded_users, encoded_titles = look_up(users, schema, "user", scenario=True), look_up(titles, schema, "title")
    score = keras.Model({**users, **titles}, model.predictor({**encoded_users, **encoded_titles}))
    user = keras.Model(users, model.user_tower(encoded_users))
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((size.titles, size.units[-1]), "float32")
    everything = np.ones(size.titles, bool)
    catalogue = Catalogue([f"m{i}" for i in range(size.titles)], {name: everything for (name,) in groups})
    recommender = Recommender(ExactIndex(catalogue, vectors))

    def specs(raw):
        return {name: tf.TensorSpec(value.shape, value.dtype, name=name) for name, value in raw.items()}

    request = specs({**REQUEST, **{name: spec for name, (spec, _) in OPTIONS.items()}})
    archive = keras.export.ExportArchive()
    for part in (score, user, recommender):
        archive.track(part)
    archive.add_endpoint("serving_default", lambda raw: score(raw), [specs({**users, **titles})])
    archive.add_endpoint(
        "recommend",
        lambda raw: recommender(user({n: raw[n] for n in users})["click"], raw),
        [{**specs(users), **request}],
    )
    archive.write_out(str(folder / "model" / "1"), verbose=False)
    return folder / "model"


def arrays(size, kind):
    """Inputs of a request."""
    rng, rows = np.random.default_rng(1), REQUESTS[kind]
    territory = np.asarray([f"t{i % 24:02}" for i in range(rows)], object)
    inputs = {"user_vector": rng.standard_normal((rows, size.user), "float32"), "territory": territory}
    if kind != "recommend":
        return inputs | {"title_vector": rng.standard_normal((rows, size.title), "float32")}
    empty = np.full((rows, 1), "", object)
    more = {"request_territory": territory, "seen": empty, "allow": empty, "where": empty}
    return inputs | more | {"k": np.full(rows, 20, "int32"), "diversity": np.zeros(rows, "float32")}


def signature_of(kind):
    """Signature of a kind of request."""
    return "recommend" if kind == "recommend" else "serving_default"


def in_process(base, size, kind, seconds, together=1):
    """Latencies in seconds of calls with the arrays of `together` requests at once."""
    from tfmtr.serving.predict import choose_outputs, predict
    from tfmtr.serving.session import SavedModelSession

    session = SavedModelSession(base / "1")
    signature = session.signatures[signature_of(kind)]
    inputs = {name: np.concatenate([value] * together) for name, value in arrays(size, kind).items()}
    outputs, latencies = choose_outputs(signature), []
    for _ in range(5):
        predict(session, signature, inputs, outputs)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        started = time.perf_counter()
        predict(session, signature, inputs, outputs)
        latencies.append(time.perf_counter() - started)
    session.close()
    return latencies


def serve_nothing(port):
    """A gRPC server whose method returns the bytes that it got, until it is killed."""
    from concurrent import futures

    import grpc

    class Handler(grpc.GenericRpcHandler):
        def service(self, details):
            return grpc.unary_unary_rpc_method_handler(lambda message, context: message)

    server = grpc.server(futures.ThreadPoolExecutor(4 * os.cpu_count()), [Handler()])
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


def nothing(size, kind, clients, seconds):
    """Latencies of `serve_nothing`, by number of clients."""
    from tfmtr.serving.process import free_port

    port = free_port()
    process = subprocess.Popen([sys.executable, __file__, "--nothing", str(port)])
    try:
        time.sleep(2)
        return {n: asyncio.run(load_grpc(port, size, kind, n, seconds)) for n in clients}
    finally:
        process.kill()
        process.wait()


async def load_grpc(port, size, kind, clients, seconds):
    """Latencies of clients that ask as fast as they are answered."""
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis.predict_pb2 import PredictRequest

    request = PredictRequest(model_spec={"name": "model", "signature_name": signature_of(kind)})
    for name, value in arrays(size, kind).items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    data, latencies, end = request.SerializeToString(), [], time.monotonic() + seconds
    options = [("grpc.use_local_subchannel_pool", 1)]

    async def client():
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            ask = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")  # bytes in, bytes out
            while not latencies or time.monotonic() < end:
                started = time.perf_counter()
                await ask(data)
                latencies.append(time.perf_counter() - started)

    await asyncio.gather(*(client() for _ in range(clients)))
    return latencies


async def load_rest(port, size, kind, clients, seconds):
    """The same over REST."""
    import aiohttp

    columns = {name: value.tolist() for name, value in arrays(size, kind).items()}
    body = json.dumps({"signature_name": signature_of(kind), "inputs": columns}).encode()
    url, latencies, end = f"http://127.0.0.1:{port}/v1/models/model:predict", [], time.monotonic() + seconds

    async def client(session):
        while not latencies or time.monotonic() < end:
            started = time.perf_counter()
            async with session.post(url, data=body) as response:
                await response.read()
                response.raise_for_status()
            latencies.append(time.perf_counter() - started)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(client(session) for _ in range(clients)))
    return latencies


def summary(latencies, seconds):
    """p50 and p99 in milliseconds, and calls a second."""
    p50, p99 = 1000 * np.percentile(latencies, [50, 99])
    return {"p50": float(p50), "p99": float(p99), "per_second": len(latencies) / seconds}


def measure(size, requests, clients, seconds):
    """Everything about one model, `{what: summary}`."""
    from tfmtr.serving.process import ServerProcess

    found = {}
    with tempfile.TemporaryDirectory() as folder:
        base = make_model(Path(folder), size)
        for kind in requests:
            found[f"{kind}, in process"] = summary(in_process(base, size, kind, seconds), seconds)
            many = in_process(base, size, kind, seconds, together=64)
            found[f"{kind}, in process, 64 at once"] = summary(many, seconds / 64)
            for number, latencies in nothing(size, kind, clients, seconds).items():
                found[f"{kind}, gRPC that does nothing, {number} clients"] = summary(latencies, seconds)
        for batching in (False, True):
            file = Path(folder) / "batching.txt"
            file.write_text(BATCHING)
            flags = ["--enable_batching", f"--batching_parameters_file={file}"] if batching else []
            with ServerProcess(f"--model_base_path={base}", "--model_name=model", *flags) as server:
                for kind in requests:
                    for protocol, load, at in (("gRPC", load_grpc, server.port), ("REST", load_rest, server.rest_port)):
                        for number in clients:
                            latencies = asyncio.run(load(at, size, kind, number, seconds))
                            name = f"{kind}, {protocol}, {number} clients{', batching' if batching else ''}"
                            found[name] = summary(latencies, seconds)
                            print(name, {k: round(v, 2) for k, v in found[name].items()}, flush=True)
    return found


def print_results(results):
    """One table, and what became of the goals."""
    table = Table("model", "what", "p50, ms", "p99, ms", "requests a second")
    for name, row in results.items():
        model, what = name.split(", ", 1)
        table.add_row(model, what, f"{row['p50']:.2f}", f"{row['p99']:.2f}", f"{row['per_second']:,.0f}")
    Console(width=120).print(table)
    for name in [name for name in results if name.endswith(", in process")]:
        request, alone = name.removesuffix(", in process"), results[name]["p50"]
        one, many = (results.get(f"{request}, gRPC, {n}") for n in ("1 clients", "64 clients, batching"))
        if one and many:
            share = many["per_second"] / results[f"{name}, 64 at once"]["per_second"]
            print(f"{request}: p50 of one client {one['p50'] - alone:.2f} ms above the process (goal: below 1)")
            print(f"{request}: 64 clients with batching {share:.3f} of batches in the process (goal: at least 0.5)")


def main(*, seconds=4.0, clients=(1, 8, 64), requests=tuple(REQUESTS), sizes=SIZES, out=RESULT):
    """Measures, prints and writes; returns the document."""
    from tfmtr import training

    document = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {"results": {}}
    document |= {"seconds": seconds, "versions": training.versions()}
    document["date"] = time.strftime("%Y-%m-%d", time.gmtime())
    out.parent.mkdir(parents=True, exist_ok=True)
    for name, size in sizes.items():
        found = measure(size, requests, clients, seconds)
        document["results"] |= {f"{name}, {what}": row for what, row in found.items()}
        out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print_results(document["results"])
    return document


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES), help="only these models")
    parser.add_argument("--nothing", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.nothing:
        serve_nothing(arguments.nothing)
    else:
        main(seconds=arguments.seconds, sizes={name: SIZES[name] for name in arguments.sizes})
