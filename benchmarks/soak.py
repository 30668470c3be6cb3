"""Ten minutes of mixed load on the embedded server while versions come and go: no wrong answer, flat memory.

    python benchmarks/soak.py --minutes 10

Four gRPC and two REST clients ask as fast as they are answered. Every 20 seconds a new version is published, every
minute one that cannot be loaded; old directories are deleted. The answer of version v is x / 2 + (v modulo 3) + 1, so
that an answer of the wrong version shows. Writes `benchmarks/results/soak.json` and `soak.png`: requests, failures,
wrong answers and the server's resident memory, second by second.

Expected: no failure, no wrong answer, and the memory of the last minute within a tenth of the third minute's.
"""

import argparse
import json
import os
import shutil
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

RESULT = Path("benchmarks/results/soak.json")
X = np.arange(8, dtype="float32")


class Half(tf.Module):
    """x / 2 + n."""

    def __init__(self, n):
        super().__init__()
        self.n = tf.Variable(float(n))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def run(self, x):
        """The signature."""
        return {"y": x / 2 + self.n}


def make_models(folder):
    """Three SavedModels, of which number n computes x / 2 + n + 1."""
    for n in range(3):
        model = Half(n + 1)
        tf.saved_model.save(model, str(folder / str(n)), signatures={"serving_default": model.run})


def publish(source, base, number):
    """Puts a version in place at once."""
    hidden = base / f"tmp-{number}"
    if source is None:
        hidden.mkdir(parents=True)
        (hidden / "saved_model.pb").write_bytes(b"broken")
    else:
        shutil.copytree(source, hidden)
    hidden.rename(base / str(number))


def memory(pid):
    """Resident MiB of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


class Load:
    """Clients that ask until they are told to stop."""

    def __init__(self, port, rest_port):
        self.port, self.rest_port = port, rest_port
        self.stop, self.lock = threading.Event(), threading.Lock()
        self.answers, self.wrong, self.failures = 0, [], []

    def count(self, versions, y):
        """One answer; wrong if it is of none of these versions."""
        is_right = any(np.allclose(y, X / 2 + v % 3 + 1) for v in versions)
        with self.lock:
            self.answers += 1
            if not is_right:
                self.wrong.append([list(versions), list(map(float, y))])

    def ask_grpc(self):
        """A client of gRPC: the response says which version it is of."""
        request = predict_pb2.PredictRequest(model_spec={"name": "model"})
        request.inputs["x"].CopyFrom(tf.make_tensor_proto(X))
        with grpc.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            while not self.stop.is_set():
                try:
                    response = stub.Predict(request, timeout=20)
                    self.count([response.model_spec.version.value], response.outputs["y"].float_val)
                except Exception as error:
                    self.failures.append(repr(error)[:300])

    def ask_rest(self):
        """A client of REST: any version's answer is right."""
        body = json.dumps({"inputs": X.tolist()}).encode()
        url = f"http://127.0.0.1:{self.rest_port}/v1/models/model:predict"
        while not self.stop.is_set():
            try:
                with urllib.request.urlopen(url, body, timeout=20) as response:
                    self.count(range(3), json.load(response)["outputs"])
            except Exception as error:
                self.failures.append(repr(error)[:300])


def main(*, minutes=10.0, every=20.0, broken_every=60.0, out=RESULT):
    """Runs, prints and writes; returns the document."""
    from tfmtr import training
    from tfmtr.serving.process import ServerProcess

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        make_models(folder)
        base = folder / "model"
        publish(folder / "1", base, 1)
        server = ServerProcess(
            *(f"--model_base_path={base}", "--model_name=model", "--enable_batching"),
            *("--file_system_poll_wait_seconds=0.5", "--max_num_load_retries=1"),
        ).wait()
        load, samples = Load(server.port, server.rest_port), []
        clients = [threading.Thread(target=ask) for ask in [load.ask_grpc] * 4 + [load.ask_rest] * 2]
        for client in clients:
            client.start()
        start, number, next_version, next_broken = time.monotonic(), 1, every, broken_every
        published = {"good": 1, "broken": 0}
        try:
            while (now := time.monotonic() - start) < 60 * minutes:
                samples.append({"second": now, "mebibytes": memory(server.process.pid), "answers": load.answers})
                if now >= next_version:
                    number, next_version = number + 1, next_version + every
                    publish(folder / str(number % 3), base, number)
                    published["good"] += 1
                if now >= next_broken:
                    number, next_broken = number + 1, next_broken + broken_every
                    publish(None, base, number)
                    published["broken"] += 1
                old = sorted((p for p in base.iterdir() if p.name.isdigit()), key=lambda p: int(p.name))[:-4]
                for path in old:
                    shutil.rmtree(path)
                time.sleep(1)
        finally:
            load.stop.set()
            for client in clients:
                client.join()
            code = server.stop()
    document = {
        "minutes": minutes, "answers": load.answers, "failures": len(load.failures), "wrong": len(load.wrong),
        "first": [*load.failures[:3], *load.wrong[:3]], "published": published, "exit_status": code,
        "samples": samples, "versions": training.versions(), "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(document) + "\n", encoding="utf-8")
    draw(samples, out.with_suffix(".png"))
    print({name: value for name, value in document.items() if name not in ("samples", "versions")})
    return document


def draw(samples, file):
    """Memory and answers over time."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    seconds = [sample["second"] for sample in samples]
    figure, axes = plt.subplots(2, 1, figsize=(9, 6), sharex=True)
    axes[0].plot(seconds, [sample["mebibytes"] for sample in samples])
    axes[0].set_ylabel("resident memory, MiB")
    axes[0].set_ylim(0, 1.2 * max(row["mebibytes"] for row in samples))
    axes[1].plot(seconds[1:], np.diff([sample["answers"] for sample in samples]) / np.diff(seconds))
    axes[1].set_ylabel("answers a second")
    axes[1].set_xlabel("seconds")
    figure.savefig(file, dpi=120, bbox_inches="tight")
    plt.close(figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    main(minutes=parser.parse_args().minutes)
