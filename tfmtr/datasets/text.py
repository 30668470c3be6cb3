"""Title text to vectors: TF-IDF and truncated SVD, or a KerasHub text encoder."""

import numpy as np
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

MAX_TERMS = 50_000
BATCH_SIZE = 64


def text_vectors(texts, *, width=128, seed=0):
    """Latent semantic vectors of short texts.

    Words are letters and digits joined by hyphens or apostrophes, so that the genre `Sci-Fi` is one word. Where there
    is no word at all (titles known by nothing but their id) every title gets its own random vector, by which
    a model can learn it by heart.

    Args:
        texts: List of text.
        width: Most columns; fewer where there are fewer different words or titles.
        seed: Integer.

    Returns:
        Float32 matrix of shape `(len(texts), width)`.

    Example:
    >>> text_vectors(["Heat crime", "Casino crime", "Toy Story children"], width=2).shape
    (3, 2)
    """
    vectorizer = TfidfVectorizer(token_pattern=r"(?u)\w+(?:[-']\w+)*", sublinear_tf=True, max_features=MAX_TERMS)
    if not has_words(texts):
        return (np.random.default_rng(seed).standard_normal((len(texts), width)) / np.sqrt(width)).astype("float32")
    terms = vectorizer.fit_transform(texts)
    width = max(1, min(width, terms.shape[1] - 1, terms.shape[0] - 1))
    if terms.shape[1] == 1:
        return terms.toarray().astype("float32")
    with np.errstate(invalid="ignore"):  # equal texts have no variance to explain
        return TruncatedSVD(width, random_state=seed).fit_transform(terms).astype("float32")


def has_words(texts):
    """Whether any text has a letter or digit."""
    return any(character.isalnum() for text in texts for character in text)


def encoder_vectors(texts, preset):
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
        import keras_hub
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
