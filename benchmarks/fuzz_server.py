"""Bad requests by the thousand on both ports of the embedded server: no crash, no hang, no wrong code.

    python benchmarks/fuzz_server.py --requests 100000

Starts `tfmtr serve` on a small model with the flags of its deployment kit, four times, and sends, a quarter each: REST
bodies drawn by Hypothesis (JSON that is nearly a request, and JSON that is not), REST requests whose bytes are
damaged, gRPC messages drawn by Hypothesis, gRPC messages whose bytes are damaged. Every answer must have a code that
the protocol allows: REST 200, 4xx, 501 where a type cannot be JSON; gRPC OK, INVALID_ARGUMENT, NOT_FOUND,
FAILED_PRECONDITION, UNIMPLEMENTED, and INTERNAL only for bytes that are no message of the method. Every thousand
requests, and at the end, a good request must be answered within a second.

Beside it clients send a good body a byte at a time, half a body, and nothing at all; and versions come that cannot be
read, and go. When they have stopped, the server must have as many threads as after its first requests, but for three
that pools may have more, and no more memory than a tenth above. Then it gets SIGTERM while 32 requests have sent their
headers and not their bodies: all must be answered, and the server must end within ten seconds.

Expected: "0 wrong codes, 0 hangs", the counts of each code, and threads, memory and seconds of each server; all of them
in `benchmarks/results/fuzz_server.json`, too.
"""

import argparse
import collections
import json
import os
import random
import re
import shutil
import socket
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import grpc
import hypothesis
import numpy as np
import tensorflow as tf
import yaml
from hypothesis import strategies as st
from tensorflow_serving.apis.classification_pb2 import ClassificationRequest
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest
from tensorflow_serving.apis.inference_pb2 import MultiInferenceRequest
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.regression_pb2 import RegressionRequest

from tfmtr import training
from tfmtr.documents import write_json
from tfmtr.serving.deploy_kit import deploy_kit
from tfmtr.serving.process import ServerProcess

RESULT = Path("benchmarks/results/fuzz_server.json")
REST_CODES = {200, 400, 404, 405, 413, 431, 501}
GRPC_CODES = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "UNIMPLEMENTED"}
PATHS = [
    "/v1/models/toy:predict",
    "/v1/models/toy:classify",
    "/v1/models/toy/versions/1:regress",
    "/v1/models/no:predict",
]
METHODS = {
    "Predict": PredictRequest,
    "Classify": ClassificationRequest,
    "Regress": RegressionRequest,
    "MultiInference": MultiInferenceRequest,
    "GetModelMetadata": GetModelMetadataRequest,
}
SECONDS = 10.0
ROUNDS = 4  # servers
PENDING = 32  # requests whose bodies come after SIGTERM
FIRST = 300  # requests after which threads and memory are counted
MORE = 3  # threads that pools may have more then


class Toy(tf.Module):
    """One signature of numbers, one of text whose number may be left out, one of examples."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def half(self, x):
        """Half of x."""
        return {"y": x / 2}

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.string, name="text"), tf.TensorSpec([None], tf.int64, name="n")]
    )
    def text(self, text, n=tf.constant([7], tf.int64)):  # noqa: B008
        """Text and number as one text."""
        return {"joined": tf.strings.join([text, tf.strings.as_string(n)])}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float16, name="h")])
    def half_float(self, h):
        """What JSON cannot carry."""
        return {"h": h}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def scores(self, inputs):
        """Scores of examples."""
        parsed = tf.io.parse_example(inputs, {"x": tf.io.FixedLenFeature([2], tf.float32)})
        return {"scores": parsed["x"]}


def make(folder):
    """A toy model, and the server's flags of its deployment kit."""
    model = Toy()
    signatures = {"serving_default": model.half, "text": model.text, "half": model.half_float, "scores": model.scores}
    tf.saved_model.save(model, str(folder / "toy" / "1"), signatures=signatures)
    deploy_kit(folder / "toy", folder / "deploy")
    config = folder / "deploy" / "config"
    models = config / "model.config"
    models.write_text(models.read_text().replace("/models/", f"{folder}/"))
    (service,) = yaml.safe_load((folder / "deploy" / "docker-compose.yml").read_text())["services"].values()
    return [flag.replace("/config/", f"{config}/") for flag in service["command"]]


SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS | st.fixed_dictionaries({"b64": st.text(max_size=8)}),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["x", "text", "n", "h", "b64", ""]), inner)
    ),
    max_leaves=12,
)
NAMES = st.sampled_from(["serving_default", "text", "half", "scores", "no", ""]) | SCALARS
DOCUMENTS = st.dictionaries(
    st.sampled_from(["instances", "inputs", "signature_name", "examples", "context", "more"]), VALUES, max_size=3
).flatmap(lambda document: NAMES.map(lambda name: document | {"signature_name": name}) | st.just(document))
PROTOS = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["toy", "toy", "toy", "no", ""]),
        "signature": st.sampled_from(["serving_default", "text", "half", "scores", "no", ""]),
        "inputs": st.dictionaries(
            st.sampled_from(["x", "text", "n", "h", "inputs", "z"]),
            st.tuples(
                st.sampled_from([1, 1, 7, 9]) | st.integers(0, 30),  # float, string, int64; any
                st.lists(st.integers(0, 3) | st.integers(-2, 5), max_size=3),
                st.binary(max_size=16),
            ),
            max_size=3,
        ),
        "names": st.lists(st.sampled_from(["y", "joined", "no", "signature_def"]), max_size=2),
        "procedure": st.sampled_from(["predict", "classify", "regress", "no"]).map("tensorflow/serving/{}".format),
        "is_whole": st.booleans(),
    }
)
# The least that the signature `text` needs, and what else was drawn.
NEARLY = PROTOS.map(
    lambda drawn: (
        drawn | WHOLE | {"signature": "text", "inputs": drawn["inputs"] | {"text": (7, [1], b"")}, "names": []}
    )
)

WHOLE = {
    "name": "toy",
    "signature": "serving_default",
    "inputs": {"x": (1, [2], b"")},
    "names": ["y"],
    "procedure": "tensorflow/serving/classify",
    "is_whole": True,
}


def message(method, drawn):
    """A request of what was drawn."""
    spec = {"name": drawn["name"], "signature_name": drawn["signature"]}
    if method == "Predict":
        request = PredictRequest(model_spec=spec, output_filter=drawn["names"])
        for name, tensor in drawn["inputs"].items():
            fill(request.inputs[name], *tensor, is_whole=drawn["is_whole"])
    elif method == "GetModelMetadata":
        request = GetModelMetadataRequest(model_spec=spec, metadata_field=drawn["names"])
    else:
        task = {"model_spec": spec, "method_name": drawn["procedure"]}
        request = METHODS[method](**({"tasks": [task]} if method == "MultiInference" else {"model_spec": spec}))
        examples = request.input.example_list.examples
        for name, (kind, shape, content) in drawn["inputs"].items():
            lists = examples.add().features.feature[name]
            if drawn["is_whole"]:
                lists.float_list.value.extend([1.5, 2.0])
            elif kind % 2:
                lists.bytes_list.value.append(content)
            else:
                lists.int64_list.value.extend(shape)
    return request


def fill(proto, dtype, shape, content, *, is_whole):
    """A tensor that may be none; a whole one has as many floats, or texts, as its shape needs."""
    proto.dtype = dtype
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    if is_whole:
        size = max(0, int(np.prod(shape)))
        if dtype == tf.string.as_datatype_enum:
            proto.string_val.extend([b"a"] * size)
        else:
            proto.float_val.extend([1.0] * size)
        return
    proto.tensor_content = content
    proto.float_val.extend([1.0] * (len(content) % 3))
    proto.string_val.extend([content] * (len(content) % 2))


def damaged(data, rng):
    """Bytes with some of them changed, cut, doubled or made up."""
    data = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(4)
        if kind == 0 and at < len(data):
            data[at] = rng.randrange(256)
        elif kind == 1:
            del data[at : at + rng.randint(1, 8)]
        elif kind == 2:
            data[at:at] = data[max(0, at - 8) : at]
        else:
            data[at:at] = rng.randbytes(rng.randint(1, 8))
    return bytes(data)


class Ports:
    """Sends requests and counts what comes back."""

    def __init__(self):
        self.counts, self.wrong, self.hangs, self.servers = collections.Counter(), [], [], []

    def ask(self, port, rest_port):
        """Asks another server from now on."""
        self.rest_port, self.channel = rest_port, grpc.insecure_channel(f"127.0.0.1:{port}")
        self.calls = {m: self.channel.unary_unary(f"/tensorflow.serving.PredictionService/{m}") for m in METHODS}

    def rest(self, data, allowed=REST_CODES):
        """Raw bytes of one HTTP request; the first line of the answer, or a closed connection, must be right."""
        try:
            with socket.create_connection(("127.0.0.1", self.rest_port), SECONDS) as connection:
                connection.settimeout(SECONDS)
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)  # half open: whatever was promised does not come any more
                answer = b""
                while part := connection.recv(65536):
                    answer += part
        except (BrokenPipeError, ConnectionResetError):
            self.counts["REST closed"] += 1
            return
        except TimeoutError:
            self.hangs.append(data[:300])
            return
        words = answer.split(b" ", 2)
        code = int(words[1]) if words[0].startswith(b"HTTP/1.") and len(words) > 1 and words[1].isdigit() else None
        self.counts[f"REST {code or 'closed'}"] += 1
        if code is not None and code not in allowed:
            self.wrong.append((code, data[:300], answer[-300:]))

    def grpc(self, method, data, allowed):
        """Raw bytes of one message."""
        try:
            self.calls[method](data, timeout=SECONDS)
            code = "OK"
        except grpc.RpcError as error:
            code, text = error.code().name, error.details()
            if code == "DEADLINE_EXCEEDED":
                self.hangs.append((method, data[:300]))
            elif code not in allowed:
                self.wrong.append((method, code, text, data[:300]))
        self.counts[f"gRPC {code}"] += 1

    def check_alive(self):
        """Good requests are answered at once, whatever was asked before of the same signature."""
        for signature, name, value in (("serving_default", "x", np.float32([4])), ("text", "text", ["a"])):
            request = PredictRequest(model_spec={"name": "toy", "signature_name": signature})
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
            started = time.monotonic()
            self.calls["Predict"](request.SerializeToString(), timeout=SECONDS)
            if time.monotonic() - started > 1:
                self.hangs.append("a good request took over a second")


def http(path, body, more=b""):
    """Bytes of a POST."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\nConnection: close\r\n".encode()
    return head + more + b"\r\n" + body


class Beside:
    """What else happens to a server: slow and silent clients, and versions that cannot be read.

    Args:
        ports: The `Ports`, which count answers.
        base: Folder of the model's versions.
    """

    def __init__(self, ports, base):
        self.ports, self.base, self.is_over = ports, base, threading.Event()
        self.threads = [threading.Thread(target=self.repeat, args=(work,)) for work in (self.slow, self.half, self.bad)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *exception):
        self.is_over.set()
        for thread in self.threads:
            thread.join()

    def repeat(self, work):
        """Works until it is over."""
        number = 1
        while not self.is_over.is_set():
            number += 1
            work(number)

    def slow(self, _):
        """A good request a byte at a time."""
        with socket.create_connection(("127.0.0.1", self.ports.rest_port), SECONDS) as connection:
            connection.settimeout(SECONDS)
            for byte in good(keep=True):
                connection.sendall(bytes([byte]))
                time.sleep(0.002)
            answer = connection.recv(65536)
        self.ports.counts["REST a byte at a time"] += 1
        if not answer.startswith(b"HTTP/1.1 200"):
            self.ports.wrong.append(("a byte at a time", answer[:300]))

    def half(self, number):
        """A connection that says nothing, half a line, or half of its body, and is let go."""
        data = (b"", b"POST /v1/mod", good(keep=True)[:-5])[number % 3]
        with socket.create_connection(("127.0.0.1", self.ports.rest_port), SECONDS) as connection:
            connection.sendall(data)
            self.is_over.wait(0.1)

    def bad(self, number):
        """A version that cannot be read comes and goes."""
        staging = self.base.parent / f"staging-{number}"
        staging.mkdir()
        (staging / "saved_model.pb").write_bytes(b"broken")
        staging.rename(self.base / str(number))
        self.is_over.wait(2)
        shutil.rmtree(self.base / str(number))
        self.is_over.wait(0.5)


def good(*, keep=False):
    """Bytes of a good request; of one whose connection stays."""
    data = http(PATHS[0], b'{"instances": [1.0, 2.5]}', b"Content-Type: application/json\r\n")
    return data.replace(b"Connection: close\r\n", b"") if keep else data


def size_of(process):
    """`(threads, MB)` of a process."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    threads, kilobytes = (int(re.search(rf"{name}:\s+(\d+)", status)[1]) for name in ("Threads", "VmRSS"))
    return threads, kilobytes / 1024


def stop_with_requests_on_their_way(server, ports):
    """SIGTERM between the headers and the bodies of requests; returns seconds until the server has ended."""
    data = good(keep=True)
    at = data.index(b"\r\n\r\n") + 4
    connections = [socket.create_connection(("127.0.0.1", server.rest_port), SECONDS) for _ in range(PENDING)]
    for connection in connections:
        connection.settimeout(SECONDS)
        connection.sendall(data[:at])
    time.sleep(0.5)
    began = time.monotonic()
    server.process.terminate()
    time.sleep(0.05)

    def finish(connection):
        with connection:
            connection.sendall(data[at:])
            return connection.recv(65536)

    with ThreadPoolExecutor(PENDING) as pool:
        for answer in pool.map(finish, connections):
            ports.counts["REST during a stop"] += 1
            if not answer.startswith(b"HTTP/1.1 200"):
                ports.wrong.append(("during a stop", answer[:300]))
    status = server.process.wait(60)
    if status:
        ports.wrong.append(("exit status", status))
    return time.monotonic() - began


def send(ports, requests, seed):
    """Bad requests of all four kinds."""
    rng, quarter, sent = random.Random(seed), requests // 4, [0]
    quiet = [*hypothesis.HealthCheck]
    settings = hypothesis.settings(max_examples=quarter, database=None, deadline=None, suppress_health_check=quiet)

    def sent_one():
        sent[0] += 1
        if sent[0] % 1000 == 0:
            ports.check_alive()

    @hypothesis.seed(seed)
    @settings
    @hypothesis.given(DOCUMENTS | VALUES, st.sampled_from(PATHS))
    def rest_bodies(document, path):
        ports.rest(http(path, json.dumps(document).encode(errors="surrogatepass")))
        sent_one()

    @hypothesis.seed(seed)
    @settings
    @hypothesis.given(PROTOS | NEARLY, st.sampled_from([*METHODS]))
    def grpc_messages(drawn, method):
        ports.grpc(method, message(method, drawn).SerializeToString(), GRPC_CODES)
        sent_one()

    whole = {method: message(method, WHOLE).SerializeToString() for method in METHODS}
    rest_bodies()
    grpc_messages()
    for _ in range(quarter):
        ports.rest(damaged(good(), rng))
        sent_one()
        method = rng.choice([*METHODS])
        ports.grpc(method, damaged(whole[method], rng), GRPC_CODES | {"INTERNAL"})
        sent_one()
    ports.check_alive()
    return sent[0]


def main(requests=100_000, seed=0, rounds=ROUNDS, out=RESULT):
    """Sends, prints and writes; returns the `Ports`."""
    ports, sent = Ports(), 0
    with tempfile.TemporaryDirectory() as folder:
        flags = make(Path(folder))
        for number in range(rounds):
            with_server = ServerProcess(*flags)
            try:
                server = with_server.wait()
                ports.ask(server.port, server.rest_port)
                sent += send(ports, min(FIRST, requests // rounds), seed + 1000 * number)
                before = size_of(server.process)
                with Beside(ports, Path(folder) / "toy"):
                    sent += send(ports, requests // rounds, seed + number)
                end = time.monotonic() + 60
                while size_of(server.process)[0] > before[0] + MORE and time.monotonic() < end:
                    time.sleep(0.2)
                after = size_of(server.process)
                ports.channel.close()
                seconds = stop_with_requests_on_their_way(server, ports)
            except BaseException:
                with_server.process.kill()
                print(with_server.log()[-3000:], file=sys.stderr)
                raise
            ports.servers.append({"threads": (before[0], after[0]), "mb": (before[1], after[1]), "seconds": seconds})
            if after[0] > before[0] + MORE or after[1] > 1.1 * before[1] + 20:
                ports.wrong.append(("not back where it was", before, after))
    print(f"{sent} requests: {len(ports.wrong)} wrong codes, {len(ports.hangs)} hangs")
    for server in ports.servers:
        print("threads {} to {}, MB {:.0f} to {:.0f}, ended after {:.1f} s".format(
            *server["threads"], *server["mb"], server["seconds"]
        ))  # fmt: skip
    for name, count in sorted(ports.counts.items()):
        print(f"{name}: {count}")
    for fault in (*ports.wrong[:5], *ports.hangs[:5]):
        print(fault)
    write_json(out, {
        "requests": sent, "wrong": len(ports.wrong), "hangs": len(ports.hangs), "servers": ports.servers,
        "counts": dict(ports.counts), "versions": training.versions(), "date": time.strftime("%Y-%m-%d", time.gmtime()),
    })  # fmt: skip
    return ports


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    found = main(arguments.requests, arguments.seed)
    raise SystemExit(bool(found.wrong or found.hangs))
