import keras
import numpy as np
import pytest

from tfmtr.layers.streaming_frequency import StreamingFrequency


def test_the_streaming_frequency_finds_the_probability_of_being_in_a_batch():
    layer, rng = StreamingFrequency(num_buckets=1000), np.random.default_rng(0)
    for _ in range(600):
        ids = [1, 1]  # in each batch, twice
        ids += [2] if rng.random() < 0.5 else [50]
        ids += [3] if rng.random() < 0.1 else [60]
        layer(np.asarray(ids), training=True)
    p = np.exp(layer(np.asarray([1, 2, 3])))
    np.testing.assert_allclose(p, [1.0, 0.5, 0.1], rtol=0.35)
    assert p[0] == pytest.approx(1.0, abs=0.01)
    before = np.asarray(layer.gap)
    layer(np.asarray([1, 2, 3]), training=False)
    np.testing.assert_array_equal(layer.gap, before)


def test_the_streaming_frequency_by_hand():
    layer = StreamingFrequency(num_buckets=101, num_hashes=1, rate=0.5)
    for batch in ([5], [6], [5], [6], [6], [5]):  # 5 in batches 1, 3, 6
        layer(np.asarray(batch), training=True)
    gap = 1.0  # first seen in batch 1
    for gap_now in (2, 3):
        gap = 0.5 * gap + 0.5 * gap_now
    assert float(layer(np.asarray([5]))[0]) == pytest.approx(-np.log(gap), rel=1e-6)


def test_a_collision_in_one_table_is_seen_through_by_another():
    found = []
    for num_hashes in (1, 2):
        layer = StreamingFrequency(num_buckets=5, num_hashes=num_hashes)
        for t in range(100):
            layer(
                np.asarray([0, 5] if t % 20 == 19 else [0]), training=True
            )  # 0 and 5 share a bucket of the first table
        found.append(float(np.exp(layer(np.asarray([5]))[0])))
    assert found == pytest.approx([1.0, 0.05], rel=1e-4)


def test_survives_saving(tmp_path):
    ids = keras.Input((), dtype="int32")
    model = keras.Model(ids, StreamingFrequency(num_buckets=11, num_hashes=3, rate=0.2)(ids))
    for _ in range(3):
        model(np.asarray([1, 2]), training=True)
    model(np.asarray([3]), training=True)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(np.asarray([1, 3])), model(np.asarray([1, 3])))


def test_bad_input():
    with pytest.raises(ValueError, match=r"`rate` must be in \(0, 1\]. Received: rate=0"):
        StreamingFrequency(rate=0)
    with pytest.raises(ValueError, match="`num_buckets` must be a positive integer"):
        StreamingFrequency(num_buckets=0)
