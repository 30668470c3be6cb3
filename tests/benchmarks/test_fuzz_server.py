import json
import random

import pytest

from benchmarks import fuzz_server


def test_a_few_hundred_bad_requests(capsys, tmp_path):
    ports = fuzz_server.main(requests=300, seed=1, rounds=1, out=tmp_path / "result.json")
    assert json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))["requests"] == 600
    assert (ports.wrong, ports.hangs) == ([], [])
    assert sum(ports.counts.values()) >= 600
    assert ports.counts["REST during a stop"] == 32
    assert ports.counts["REST a byte at a time"] > 0
    assert "600 requests: 0 wrong codes, 0 hangs" in capsys.readouterr().out


def test_a_wrong_code_is_seen():
    class Connection:
        def __init__(self, *arguments):
            self.answers = [b"HTTP/1.1 500 Oh\r\n\r\n", b""]

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            pass

        def recv(self, size):
            return self.answers.pop(0)

        settimeout = sendall = shutdown = lambda *arguments: None

    ports = fuzz_server.Ports()
    ports.ask(1, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fuzz_server.socket, "create_connection", Connection)
        ports.rest(b"x")
    assert [code for code, *_ in ports.wrong] == [500]


def test_damaged_bytes_differ():
    rng, data = random.Random(0), json.dumps({"instances": [1.0]}).encode()
    assert len({fuzz_server.damaged(data, rng) for _ in range(50)} - {data}) > 40
