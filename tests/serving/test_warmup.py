import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from tfmtr.serving.client import Client
from tfmtr.serving.errors import ServerError
from tfmtr.serving.request_counts import METRICS
from tfmtr.serving.server import Server
from tfmtr.serving.session import SavedModelSession
from tfmtr.serving.warmup import FILE, warm_up, write_warm_up


def request(x=(1.0,), **spec):
    made = predict_pb2.PredictRequest(model_spec={"name": "anybody", **spec})
    made.inputs["x"].CopyFrom(tf.make_tensor_proto(x))
    return made


@pytest.fixture
def version(tmp_path, publish):
    publish(tmp_path / "toy", 2)
    return tmp_path / "toy" / "2"


@pytest.fixture
def runs(monkeypatch):
    """Arrays that sessions were fed with."""
    seen, run = [], SavedModelSession.run

    def counted(self, feeds, fetches, timeout_seconds=None):
        seen.extend(np.asarray(value).tolist() for value in feeds.values())
        return run(self, feeds, fetches, timeout_seconds)

    monkeypatch.setattr(SavedModelSession, "run", counted)
    return seen


def write(version, *records):
    (version / FILE).parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(version / FILE)) as writer:
        for record in records:
            writer.write(record if isinstance(record, bytes) else record.SerializeToString())


def test_requests_are_replayed_in_order_before_the_version_serves(version, runs):
    write_warm_up([request(np.float32([i])) for i in range(3)], version)
    with Server(version.parent, port=0, num_request_iterations_for_warmup=2):
        assert runs == [[0.0], [0.0], [1.0], [1.0], [2.0], [2.0]]
    runs.clear()
    with Server(version.parent, port=0, enable_model_warmup=False):
        assert runs == []


def test_no_file_and_records_of_no_kind_are_fine(version, runs):
    session = SavedModelSession(version)
    warm_up(session, version)
    write(version, PredictionLog())
    warm_up(session, version)
    write_warm_up([request(np.float32([1]))] * 1000, version)
    warm_up(session, version)
    assert len(runs) == 1000
    session.close()


def test_every_kind_of_request_is_replayed(version, runs):
    records = [PredictionLog() for _ in range(4)]
    records[0].predict_log.request.CopyFrom(request(np.float32([1])))
    classify, regress = records[1].classify_log.request, records[2].regress_log.request
    multi = records[3].multi_inference_log.request
    classify.model_spec.signature_name, regress.model_spec.signature_name = "classify", "regress"
    multi.tasks.add(model_spec={"name": "x", "signature_name": "regress"}, method_name="tensorflow/serving/regress")
    for asked in (classify, regress, multi):
        x = asked.input.example_list.examples.add().features.feature["x"]
        x.float_list.value.extend([1.0, 2.0])
    write(version, *records)
    session = SavedModelSession(version)
    warm_up(session, version)
    assert len(runs) == 4
    classify.model_spec.signature_name = "no"
    write(version, records[1])
    with pytest.raises(ServerError, match="No signature was found with the name: no"):
        warm_up(session, version)
    session.close()


class Fallback(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def cold(self, x):
        return {"fallback": tf.fill(tf.shape(x), "cold_user")}


def test_only_what_clients_asked_for_counts_as_a_fallback(tmp_path):
    model = Fallback()
    tf.saved_model.save(model, str(tmp_path / "warmed" / "1"), signatures={"serving_default": model.cold})
    write_warm_up([request(np.float32([1, 2])) for _ in range(3)], tmp_path / "warmed" / "1")
    with (
        Server(tmp_path / "warmed", model_name="warmed", port=0) as server,
        Client(f"127.0.0.1:{server.port}", "warmed") as client,
    ):
        client.predict({"x": [1.0]})
    counts = [line for line in METRICS.text().splitlines() if line.startswith("tfmtr_fallbacks{")]
    assert not any('model_name="anybody"' in line for line in counts)  # as the saved requests call it
    assert [line for line in counts if 'model_name="warmed"' in line] == [
        'tfmtr_fallbacks{model_name="warmed",kind="cold_user"} 1'
    ]


def test_any_failure_fails_the_load(version):
    session = SavedModelSession(version)
    streamed = PredictionLog()
    streamed.session_run_log.SetInParent()
    for records, text in (
        ([streamed], "UNIMPLEMENTED: Unsupported log_type for warmup: session_run_log"),
        ([b"\xff\xff\xff"], "INVALID_ARGUMENT: Failed to parse warmup record: "),
        ([PredictionLog()] * 1001, "INVALID_ARGUMENT: Number of warmup records exceeds the maximum (1000)"),
    ):
        write(version, *records)
        with pytest.raises(ServerError) as caught:
            warm_up(session, version)
        assert str(caught.value).startswith(text)
    write_warm_up([request(np.float64([1]))], version)
    with pytest.raises(ServerError, match="to be float but double is provided"):
        warm_up(session, version)
    (version / FILE).write_bytes(b"not a record file, but long enough to be read as one")
    with pytest.raises(ServerError, match=r"DATA_LOSS: .*Please verify your warmup data is in TFRecord format\."):
        warm_up(session, version)
    session.close()
    with pytest.raises(ServerError, match="DATA_LOSS"):
        Server(version.parent, port=0, max_num_load_retries=0).start()
