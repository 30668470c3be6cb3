"""Title text to vectors: TF-IDF and truncated SVD, or a KerasHub text encoder."""

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

MAX_TERMS = 50_000
WIDTH = 128
TEXT = "text.npz"  # in a prepared directory
BATCH_SIZE = 64


@dataclasses.dataclass(frozen=True)
class TextVectors:
    """Latent semantic vectors of short texts: TF-IDF and truncated SVD, fitted once and used again.

    Words are letters and digits joined by hyphens or apostrophes, so that the genre `Sci-Fi` is one word. A title
    without a word that is known has a random vector of its own, the same wherever its id is the same, by which a model
    can learn it by heart.

    Args:
        terms: Known words, sorted.
        weights: Inverse document frequency of each word, float64 of shape `(words,)`.
        components: Float64 matrix of shape `(width, words)`.

    Example:
    >>> fitted = TextVectors.fit(["Heat crime", "Casino crime", "Toy Story children"], width=2)
    >>> fitted(["Heat crime", "A crime"], ["t1", "t2"]).shape
    (2, 2)
    """

    terms: tuple[str, ...]
    weights: np.ndarray
    components: np.ndarray

    @classmethod
    def fit(cls, texts: Sequence[str], *, width: int = WIDTH, seed: int = 0) -> "TextVectors":
        """Fits words and components to texts.

        Args:
            texts: List of text.
            width: Most columns; fewer where there are fewer different words or titles.
            seed: Integer.
        """
        if not has_words(texts):
            return cls((), np.zeros(0), np.zeros((width, 0)))
        vectorizer = _vectorizer(max_features=MAX_TERMS)
        matrix = vectorizer.fit_transform(texts)
        terms = tuple(vectorizer.get_feature_names_out().tolist())
        width = max(1, min(width, matrix.shape[1] - 1, matrix.shape[0] - 1))
        components = np.ones((1, 1))
        if len(terms) > 1:
            from sklearn.decomposition import TruncatedSVD

            with np.errstate(invalid="ignore"):  # equal texts have no variance to explain
                components = TruncatedSVD(width, random_state=seed).fit(matrix).components_
        return cls(terms, vectorizer.idf_, components)  # pyright: ignore[reportArgumentType]

    @property
    def width(self) -> int:
        """Columns of the vectors."""
        return len(self.components)

    def __call__(self, texts: Sequence[str], ids: Sequence[str], nameless: Iterable[int] = ()) -> np.ndarray:
        """Float32 matrix of shape `(len(texts), width)`.

        Args:
            texts: Texts.
            ids: The titles' own, for those without a known word.
            nameless: Places of titles whose text is not their own, such as a genre alone: their vectors are of equal
                parts the text's and one of their own, so that they are told apart.
        """
        vectors: np.ndarray = np.zeros((len(texts), self.width))
        if self.terms:
            vectorizer = _vectorizer(vocabulary=list(self.terms))
            vectorizer.idf_ = self.weights
            vectors = vectorizer.transform(texts) @ self.components.T
        unknown: np.ndarray = ~vectors.any(axis=1)  # pyright: ignore[reportAssignmentType]
        for row in {*np.flatnonzero(unknown).tolist(), *nameless}:
            rng = np.random.default_rng(list(ids[row].encode()))
            own = rng.standard_normal(self.width) / np.sqrt(self.width)
            vectors[row] = own if unknown[row] else (vectors[row] + own) / np.sqrt(2)
        return vectors.astype("float32")

    def count_unknown(self, texts: Sequence[str]) -> int:
        """How many texts have no known word."""
        if not self.terms:
            return len(texts)
        return int(
            np.sum(_vectorizer(vocabulary=list(self.terms), use_idf=False).fit_transform(texts).getnnz(axis=1) == 0)
        )

    def save(self, file: str | os.PathLike) -> None:
        """Writes a `.npz` file."""
        np.savez(file, terms=np.asarray(self.terms, str), weights=self.weights, components=self.components)

    @classmethod
    def load(cls, file: str | os.PathLike) -> "TextVectors":
        """Reads what `save` wrote."""
        with np.load(file) as arrays:
            return cls(tuple(arrays["terms"].tolist()), arrays["weights"], arrays["components"])


def _vectorizer(**options: Any) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer  # takes a second

    return TfidfVectorizer(token_pattern=r"(?u)\w+(?:[-']\w+)*", sublinear_tf=True, **options)


def has_words(texts: Iterable[str]) -> bool:
    """Whether any text has a letter or digit."""
    return any(character.isalnum() for text in texts for character in text)


def encoder_vectors(texts: Sequence[str], preset: str | os.PathLike) -> Iterator[np.ndarray]:
    """Mean token states of a KerasHub text encoder.

    Args:
        texts: List of text.
        preset: Path (or name) of a KerasHub preset of a text backbone with its tokenizer.

    Yields:
        Float32 arrays of shape `(batch, width)`.

    Raises:
        ImportError: If KerasHub is not installed.
    """
    try:
        import keras_hub  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError("`text_encoder` needs KerasHub; install it with: pip install tfmtr[text]") from error
    preprocessor = keras_hub.models.TextClassifierPreprocessor.from_preset(preset)
    backbone = keras_hub.models.Backbone.from_preset(preset)
    for start in range(0, len(texts), BATCH_SIZE):
        inputs = preprocessor(texts[start : start + BATCH_SIZE])
        states = backbone.predict(inputs, batch_size=BATCH_SIZE, verbose=0)
        states = states["sequence_output"] if isinstance(states, dict) else states  # (batch, tokens, width)
        mask = np.asarray(inputs["padding_mask"], "float32")[..., None]
        yield ((states * mask).sum(axis=1) / np.maximum(mask.sum(axis=1), 1)).astype("float32")
