import numpy as np

from tfmtr.datasets import history
from tfmtr.datasets.history import mean_vectors


def test_mean_vectors_against_a_loop(monkeypatch):
    monkeypatch.setattr(history, "CHUNK_ROWS", 7)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(12, 5)).astype("float32")
    rows = np.sort(rng.integers(0, 30, 80))
    titles = rng.integers(0, 12, 80)
    blocks = list(mean_vectors(rows, titles, vectors, 30))
    assert [len(block) for block in blocks] == [7, 7, 7, 7, 2]
    expected = [vectors[titles[rows == row]].mean(axis=0) if (rows == row).any() else np.zeros(5) for row in range(30)]
    np.testing.assert_allclose(np.concatenate(blocks), expected, atol=1e-6)
    assert blocks[0].dtype == np.float32
