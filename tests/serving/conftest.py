import shutil
import socket

import pytest
import tensorflow as tf


def _spec(dtype, shape=(None,), name=None):
    return tf.TensorSpec(shape, dtype, name=name)


class ToyModel(tf.Module):
    """Half plus `constant`, and a signature for each kind of tensor that a client can send."""

    def __init__(self, constant):
        super().__init__()
        self.constant = tf.Variable(float(constant))
        keys = tf.lookup.KeyValueTensorInitializer(["DE", "PL"], [1, 2])
        self.table = tf.lookup.StaticHashTable(keys, 0)

    @tf.function(input_signature=[_spec(tf.float32, name="x")])
    def half_plus(self, x):
        return {"y": x / 2 + self.constant}

    @tf.function(input_signature=[_spec(tf.string, name="text"), _spec(tf.int64, name="number")])
    def pair(self, text, number):
        joined = tf.strings.join([text, tf.strings.as_string(number)], "-")
        return {"joined": joined, "text_bytes": text, "group": self.table.lookup(text)}

    @tf.function(
        input_signature=[
            _spec(tf.bool, name="flag"),
            _spec(tf.float64, name="double"),
            _spec(tf.int32, name="int"),
            _spec(tf.uint8, name="byte"),
            _spec(tf.uint64, name="big"),
        ]
    )
    def kinds(self, flag, double, int, byte, big):
        return {"flag": flag, "double": double, "int": int, "byte": byte, "big": big}

    @tf.function(input_signature=[_spec(tf.float16, name="h")])
    def halves(self, h):
        return {"h": h}

    @tf.function(input_signature=[_spec(tf.float32, name="x")])
    def reduced(self, x):
        return {"total": tf.reduce_sum(x), "x": x}

    @tf.function(input_signature=[_spec(tf.float32, (None, None), name="x")])
    def matrix(self, x):
        return {"y": tf.matmul(x, tf.ones((3, 1)))}

    @tf.function(input_signature=[_spec(tf.float32, (), name="x")])
    def endless(self, x):
        while x < 1e30:
            x = x + 0.0
        return {"x": x}

    @tf.function(input_signature=[_spec(tf.string, name="inputs")])
    def classify(self, inputs):
        x = tf.io.parse_example(inputs, {"x": tf.io.FixedLenFeature([2], tf.float32)})["x"]
        classes = tf.tile(tf.constant([["no", "yes"]]), [tf.shape(x)[0], 1])
        return {"classes": classes, "scores": x + self.constant}

    @tf.function(input_signature=[_spec(tf.string, name="inputs")])
    def scores_only(self, inputs):
        return {"scores": self.classify(inputs)["scores"]}

    @tf.function(input_signature=[_spec(tf.string, name="inputs")])
    def regress(self, inputs):
        return {"outputs": self.classify(inputs)["scores"][:, :1]}

    @tf.function(input_signature=[_spec(tf.string, name="inputs")])
    def regress_two(self, inputs):
        return {"outputs": self.classify(inputs)["scores"]}

    @tf.function(input_signature=[_spec(tf.string, name="inputs")])
    def regress_double(self, inputs):
        return {"outputs": tf.cast(self.classify(inputs)["scores"][:, 0], tf.float64)}

    @tf.function(input_signature=[_spec(tf.string, name="text"), _spec(tf.int64, name="number")])
    def pair_by_default(self, text, number=tf.constant([7], tf.int64)):  # noqa: B008
        return {"joined": self.pair(text, number)["joined"]}

    @tf.function(input_signature=[_spec(tf.float32, name="x")])
    def uneven(self, x):
        return {"first": x[:1], "x": x}

    @tf.function(input_signature=[_spec(tf.float32, name="x")])
    def as_halves(self, x):
        return {"h": tf.cast(x, tf.float16)}

    def odd_examples(self):
        """Signatures of examples: one without scores, and some whose outputs fit no method."""
        choices = {
            "classes_only": lambda found: {"classes": found["classes"]},
            "three_outputs": lambda found: {**found, "more": found["scores"]},
            "flat_scores": lambda found: {"scores": found["scores"][:, 0]},
            "first_scores": lambda found: {"scores": found["scores"][:1]},
            "first_output": lambda found: {"outputs": found["scores"][:1, 0]},
        }

        def make(choose):
            return tf.function(lambda inputs: choose(self.classify(inputs)), [_spec(tf.string, name="inputs")])

        return {name: make(choose) for name, choose in choices.items()}

    @tf.function(input_signature=[_spec(tf.float64, (), name="seconds")])
    def pause(self, seconds):
        end = tf.timestamp() + seconds
        while tf.timestamp() < end:
            pass
        return {"seconds": seconds}


@pytest.fixture(scope="session")
def toy_models(tmp_path_factory):
    """Directory with the SavedModels `1`, `2`, `3`, of which `n` computes x / 2 + n."""
    root = tmp_path_factory.mktemp("toy_models")
    for number in (1, 2, 3):
        model = ToyModel(number)
        names = () if number != 2 else (
            *("pair", "kinds", "halves", "reduced", "matrix", "endless", "pause"),
            *("classify", "scores_only", "regress", "regress_two", "regress_double"),
            *("pair_by_default", "uneven", "as_halves"),
        )  # fmt: skip
        signatures = {"serving_default": model.half_plus, **{name: getattr(model, name) for name in names}}
        signatures |= model.odd_examples() if number == 2 else {}
        tf.saved_model.save(model, str(root / str(number)), signatures=signatures)
    return root


@pytest.fixture(scope="session")
def publish(toy_models):
    """`publish(base_path, number, source=None)` puts a version in place at once, as an exporter must."""

    def publish(base_path, number, source=None):
        base_path.mkdir(exist_ok=True)
        hidden = base_path / f"tmp-{number}"
        shutil.copytree(toy_models / str(source or number), hidden)
        hidden.rename(base_path / str(number))

    return publish


@pytest.fixture
def used_port():
    """A port that somebody else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture(scope="session")
def toy_server(tmp_path_factory, publish):
    """The command as a process, with the model `toy`, version 2: x / 2 + 2."""
    from tfmtr.serving.process import ServerProcess

    base_path = tmp_path_factory.mktemp("served") / "toy"
    publish(base_path, 2)
    with ServerProcess(f"--model_base_path={base_path}", "--model_name=toy", "--rest_api_timeout_in_ms=1000") as server:
        yield server
