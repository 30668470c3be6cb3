"""A rolling restart under load: no request is lost for a client that asks again what was UNAVAILABLE.

    python benchmarks/restarts.py --clients 64 --restarts 6

Two servers of a small model stand for the replicas of a service. Half of the clients ask over gRPC, half over REST,
with connections that stay open; a client that gets UNAVAILABLE (over REST 503, or no connection) asks the other server,
as a retry policy behind a service would, for a minute at most. One server after the other gets SIGTERM, and another
takes its place. Prints how many requests were answered, asked again and lost, and the seconds from SIGTERM to the exit,
and writes `benchmarks/results/restarts.json`.

Expected: 0 lost, no wrong answer, and less than two seconds to each exit.
"""

import argparse
import collections
import http.client
import json
import os
import tempfile
import threading
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import grpc
import tensorflow as tf

from tfmtr import training
from tfmtr.documents import write_json
from tfmtr.serving.client import Client
from tfmtr.serving.errors import ServerError
from tfmtr.serving.process import ServerProcess

RESULT = Path("benchmarks/results/restarts.json")
PATIENCE = 60.0  # seconds that a request is asked again
PAUSE = 0.02


class Half(tf.Module):
    """x / 2."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def run(self, x):
        """The signature."""
        return {"y": x / 2}


class UnavailableError(Exception):
    """To be asked again."""


class OverRest:
    """A client whose connection stays open."""

    def __init__(self, server):
        self.connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=PATIENCE)

    def ask(self, x):
        """The answer."""
        try:
            self.connection.request("POST", "/v1/models/half:predict", json.dumps({"instances": [x]}))
            answer = self.connection.getresponse()
            text = answer.read()
        except (ConnectionError, http.client.RemoteDisconnected) as error:
            self.connection.close()
            raise UnavailableError from error
        if answer.status == 503:
            raise UnavailableError
        return json.loads(text)["predictions"][0] if answer.status == 200 else f"{answer.status} {text[:200]}"


class OverGrpc:
    """A client of the package."""

    def __init__(self, server):
        self.client = Client(f"127.0.0.1:{server.port}", "half")

    def ask(self, x):
        """The answer."""
        try:
            return float(self.client.predict({"x": [x]})["y"][0])
        except ServerError as error:
            if error.code == grpc.StatusCode.UNAVAILABLE:
                raise UnavailableError from error
            return str(error)


class Load:
    """A client's requests, one after another.

    Args:
        servers: List of the two servers, in which a new one takes the place of the old.
        number: Number of the client.
        is_over: Event that ends it.
        counts: Counter of what became of requests, shared.
        lost: List of what was lost or wrong, shared.
    """

    def __init__(self, servers, number, is_over, counts, lost):
        self.servers, self.number, self.is_over, self.counts, self.lost = servers, number, is_over, counts, lost
        self.kind, self.at, self.clients = (OverGrpc, OverRest)[number % 2], number // 2 % 2, {}

    def run(self):
        """Asks until it is over."""
        x = float(self.number)
        while not self.is_over.is_set():
            x = (x + 1) % 1000
            self.ask(x)

    def ask(self, x):
        """Asks once, and again while that is UNAVAILABLE."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            server = self.servers[self.at]
            if server not in self.clients:
                self.clients[server] = self.kind(server)
            try:
                found = self.clients[server].ask(x)
            except UnavailableError:
                self.counts["asked again"] += 1
                self.at = 1 - self.at
                time.sleep(PAUSE)
                continue
            self.counts[f"answered over {self.kind.__name__.removeprefix('Over')}"] += 1
            if found != x / 2:
                self.lost.append((x, found))
            return
        self.lost.append((x, f"UNAVAILABLE for {PATIENCE:g} seconds"))


def main(clients=64, restarts=6, out=RESULT):
    """Asks, restarts, prints and writes; returns `(counts, what was lost or wrong, seconds to each exit)`."""
    counts, lost, seconds, is_over = collections.Counter(), [], [], threading.Event()
    with tempfile.TemporaryDirectory() as folder:
        model = Half()
        tf.saved_model.save(model, str(Path(folder, "half", "1")), signatures={"serving_default": model.run})

        def start():
            return ServerProcess(f"--model_base_path={folder}/half", "--model_name=half").wait()

        servers = [start(), start()]
        loads = [Load(servers, number, is_over, counts, lost) for number in range(clients)]
        threads = [threading.Thread(target=load.run) for load in loads]
        try:
            for thread in threads:
                thread.start()
            for number in range(restarts):
                time.sleep(1)
                new, old = start(), servers[number % 2]  # the new one is there before the old one goes
                began = time.monotonic()
                status = old.stop()
                seconds.append(time.monotonic() - began)
                servers[number % 2] = new  # until then clients ask the one that stops, too
                if status:
                    lost.append(("exit status", status))
            time.sleep(1)
        finally:
            is_over.set()
            for thread in threads:
                if thread.ident:
                    thread.join()
            for server in servers:
                server.stop()
    print(", ".join(f"{name}: {count:,}" for name, count in sorted(counts.items())))
    print(f"{len(lost)} lost or wrong; seconds from SIGTERM to exit: {', '.join(f'{s:.2f}' for s in seconds)}")
    for fault in lost[:5]:
        print(fault)
    write_json(out, {
        "clients": clients, "counts": counts, "lost": len(lost), "seconds": sorted(seconds),
        "versions": training.versions(), "date": time.strftime("%Y-%m-%d", time.gmtime()),
    })  # fmt: skip
    return counts, lost, seconds


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--restarts", type=int, default=6)
    raise SystemExit(bool(main(**vars(parser.parse_args()))[1]))
