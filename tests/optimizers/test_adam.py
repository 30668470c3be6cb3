import keras
import numpy as np
import pytest

from tfmtr.optimizers.adam import Adam

tf = pytest.importorskip("tensorflow")
OPTIONS = {"beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-3, "weight_decay": 0.01}


def steps(optimizer, dtype="float32", number=20, sparse=False):
    """The weights after some steps, traced."""
    rng = np.random.default_rng(0)
    weights = [keras.Variable(rng.normal(size=shape), dtype=dtype) for shape in ((4, 3), (3,), ())]
    optimizer.build(weights)

    @tf.function
    def step(gradients):
        if sparse:  # a row that is there twice, which Keras's Adam does not sum
            rows = tf.concat([gradients[0][:2], gradients[0][:1]], axis=0)
            gradients = [tf.IndexedSlices(rows, tf.constant([0, 2, 0]), tf.constant([4, 3])), *gradients[1:]]
        optimizer.apply(gradients, weights)

    for _ in range(number):
        step([tf.constant(rng.normal(size=weight.shape), "float32") for weight in weights])
    return [np.asarray(keras.ops.cast(weight, "float32")) for weight in weights]


@pytest.mark.parametrize("options", [{}, OPTIONS, {"amsgrad": True}, {"global_clipnorm": 0.5, "use_ema": True}])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_its_steps_are_keras_s(options, dtype):
    rate = keras.optimizers.schedules.ExponentialDecay(0.1, 5, 0.9)
    pairs = zip(steps(Adam(rate, **options), dtype), steps(keras.optimizers.Adam(rate, **options), dtype), strict=True)
    for ours, keras_s in pairs:
        np.testing.assert_allclose(ours, keras_s, rtol=1e-5 if dtype == "float32" else 0.05, atol=1e-6)


def test_rows_of_a_table_are_as_keras_has_them():
    for ours, keras_s in zip(
        steps(Adam(0.1), sparse=True), steps(keras.optimizers.Adam(0.1), sparse=True), strict=True
    ):
        np.testing.assert_allclose(ours, keras_s, rtol=1e-6)


def test_a_step_of_a_weight_is_one_operation():
    weight, optimizer = keras.Variable([1.0, 2.0]), Adam(0.1)
    optimizer.build([weight])
    step = tf.function(lambda: optimizer.apply([tf.ones(2)], [weight])).get_concrete_function()
    names = [operation.type for operation in step.graph.get_operations()]
    assert names.count("ResourceApplyAdam") == 1
    assert not {"Sqrt", "Square", "AssignSubVariableOp"} & set(names)


def test_state_goes_from_keras_s_to_it_and_back():
    """The names of what it remembers are those of runs that began with Keras's Adam."""
    states = []
    for make in (Adam, keras.optimizers.Adam):
        keras.utils.clear_session()
        optimizer = make(0.1)
        optimizer.build([keras.Variable([0.5], name="w")])
        states.append([variable.path for variable in optimizer.variables])
    assert states[0] == states[1]
    assert "adam/w_momentum" in states[0]
    config = keras.optimizers.serialize(Adam(0.1, beta_1=0.8))
    again = keras.optimizers.deserialize(config)
    assert type(again) is Adam
    assert again.beta_1 == 0.8
