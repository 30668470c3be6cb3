"""What a process keeps of models, data sets and tables that are gone: nothing."""

import gc
import weakref

import numpy as np
import pytest

from tfmtr import inputs
from tfmtr.datasets.dataset import Dataset
from tfmtr.encoders.raw import lookup

tf = pytest.importorskip("tensorflow")


@pytest.fixture
def encoders(monkeypatch):
    """Weak references to the encoders, with their vocabularies, that batches were made with."""
    found = weakref.WeakSet()

    class Encoder(inputs.Encoder):
        def __init__(self, schema):
            super().__init__(schema)
            found.add(self)

    monkeypatch.setattr("tfmtr.inputs.batched.Encoder", Encoder)
    return found


@pytest.mark.parametrize("steps", [0, 1, 100])
def test_batches_are_forgotten_with_their_data_set(tiny, encoders, steps):
    data = Dataset(tiny)
    batches = inputs.batches(data, data.examples("train"), batch_size=500).map(lambda x, y: (x, y))
    assert len(encoders) == 1
    for _ in batches.take(steps):
        pass
    del batches
    gc.collect()
    assert not encoders


def test_batches_are_there_for_as_long_as_somebody_reads_them(tiny, encoders):
    data = Dataset(tiny)
    iterator = iter(inputs.batches(data, data.examples("train"), batch_size=500).map(lambda x, y: y))
    gc.collect()
    assert len(list(iterator)) == 6
    again = inputs.batches(data, data.examples("train"), batch_size=500).take(2).repeat(2)
    gc.collect()
    assert len(list(again)) == 4


def test_a_table_goes_with_its_layer():
    layer = lookup(["a", "b"])
    handle = layer.lookup_table.resource_handle
    np.testing.assert_array_equal(layer(tf.constant(["b", "c"])), [2, 0])

    def size():
        return int(tf.raw_ops.LookupTableSizeV2(table_handle=handle))

    assert size() == 2
    del layer
    gc.collect()
    with pytest.raises(tf.errors.OpError):
        size()
