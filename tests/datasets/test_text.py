import sys
import types

import numpy as np
import pytest

from tfmtr.datasets.text import TextVectors, encoder_vectors


def text_vectors(texts, **options):
    return TextVectors.fit(texts, **options)(texts, [f"t{i}" for i in range(len(texts))])


TEXTS = ["Heat Crime", "Casino Crime", "Toy Story Children", "Antz Children", "Alien Sci-Fi"]


def test_shared_words_bring_titles_together():
    vectors = text_vectors(TEXTS, width=3)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-9)
    cosine = unit @ unit.T
    assert cosine[0, 1] > 0.9 > 0.1 > abs(cosine[0, 2])
    assert cosine[2, 3] > 0.9


def test_width_is_cut_to_what_the_texts_give():
    assert text_vectors(TEXTS, width=128).shape == (5, 4)
    assert text_vectors(["one", "one"]).shape == (2, 1)
    assert text_vectors(["only"]).shape == (1, 1)
    assert text_vectors(["two words"]).shape == (1, 1)


def test_vectors_are_seeded_float32():
    vectors = text_vectors(TEXTS, seed=3)
    np.testing.assert_array_equal(vectors, text_vectors(TEXTS, seed=3))
    assert vectors.dtype == np.float32


def test_titles_that_share_their_text_are_told_apart_where_it_is_not_their_own():
    fitted, texts, ids = TextVectors.fit(TEXTS, width=3), ["Crime", "Crime", "Children"], ["a", "b", "c"]
    same, apart = fitted(texts, ids), fitted(texts, ids, nameless=[0, 1])
    np.testing.assert_array_equal(same[0], same[1])
    np.testing.assert_array_equal(same[2], apart[2])
    own = fitted(["?", "?", "?"], ids)  # of their own alone
    np.testing.assert_allclose(apart[:2], (same[:2] + own[:2]) / np.sqrt(2), atol=1e-6)
    np.testing.assert_array_equal(apart[1], fitted(texts[1:], ids[1:], nameless=[0])[0])  # whatever the others are


def test_titles_without_words_get_a_vector_of_their_own():
    vectors = text_vectors(["", " ", "-"], width=16)
    assert vectors.shape == (3, 16)
    assert len(np.unique(vectors[:, 0])) == 3


def test_text_encoder_needs_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    with pytest.raises(ImportError, match=r"pip install tfmtr\[text\]"):
        next(encoder_vectors(TEXTS, "preset"))


def test_text_encoder_averages_the_states_of_real_tokens(monkeypatch):
    states = np.arange(10, dtype="float32").reshape(1, 5, 2)

    def preprocess(texts):
        lengths = [len(text.split()) for text in texts]
        return {"padding_mask": np.array([[place < length for place in range(5)] for length in lengths])}

    def predict(inputs, **_):
        return {"sequence_output": np.repeat(states, len(inputs["padding_mask"]), axis=0)}

    models = types.SimpleNamespace(
        TextClassifierPreprocessor=types.SimpleNamespace(from_preset=lambda preset: preprocess),
        Backbone=types.SimpleNamespace(from_preset=lambda preset: types.SimpleNamespace(predict=predict)),
    )
    monkeypatch.setitem(sys.modules, "keras_hub", types.SimpleNamespace(models=models))
    monkeypatch.setattr("tfmtr.datasets.text.BATCH_SIZE", 2)
    blocks = list(encoder_vectors(["one", "one two", ""], "preset"))
    assert [block.shape for block in blocks] == [(2, 2), (1, 2)]
    np.testing.assert_array_equal(np.concatenate(blocks), [[0, 1], [1, 2], [0, 0]])


def test_what_was_fitted_is_used_again(tmp_path):
    fitted = TextVectors.fit(TEXTS, width=3)
    fitted.save(tmp_path / "text.npz")
    again = TextVectors.load(tmp_path / "text.npz")
    ids = [f"t{i}" for i in range(5)]
    np.testing.assert_array_equal(again(TEXTS, ids), fitted(TEXTS, ids))
    later = again(["Alien Sci-Fi", "Heat Crime Returns", "Unheard of"], ["t4", "t9", "t10"])
    np.testing.assert_allclose(later[0], fitted(TEXTS, ids)[4], atol=1e-6)  # whatever else is there
    cosine = later[1] @ fitted(TEXTS, ids)[0] / np.linalg.norm(later[1]) / np.linalg.norm(fitted(TEXTS, ids)[0])
    assert cosine > 0.99
    assert again.count_unknown(["Alien", "Unheard of", ""]) == 2


def test_titles_without_a_known_word_are_told_apart_by_their_ids():
    fitted = TextVectors.fit(TEXTS, width=3)
    vectors = fitted(["", "Unheard of", "Alien"], ["a", "b", "c"])
    assert not np.allclose(vectors[0], vectors[1])
    np.testing.assert_array_equal(vectors[0], fitted(["", "Heat"], ["a", "b"])[0])
    assert np.linalg.norm(vectors[0]) > 0.1


def test_vectors_are_those_of_scikit_learn():
    """The components and weights give what its own pipeline gives, up to signs."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline

    pipeline = make_pipeline(
        TfidfVectorizer(token_pattern=r"(?u)\w+(?:[-']\w+)*", sublinear_tf=True), TruncatedSVD(3, random_state=0)
    )
    np.testing.assert_allclose(text_vectors(TEXTS, width=3), pipeline.fit(TEXTS).transform(TEXTS), atol=1e-6)
