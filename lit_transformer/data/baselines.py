"""Bits per byte of models that need no training to speak of: what a language model has to beat."""

import gzip
import lzma

import numpy as np
from numpy.typing import NDArray

from lit_transformer.data.corpora import Corpus

START = 256
"""The context of the first byte of a document."""


def baselines(corpus: Corpus) -> dict[str, float]:
    """Bits per byte of a byte-bigram model, gzip and xz on the validation split.

    The bigram model is trained on the train split; its counts are smoothed by Witten and Bell's method (1991) with the
    frequencies of single bytes, and those by adding one. The compressors see all validation documents as one stream and
    nothing of the train split, so they measure the text, not what can be learnt.
    """
    validation = [document.text.encode() for document in corpus.documents("validation")]
    stream = b"".join(validation)
    return {
        "byte bigram": _bigram(corpus, validation),
        "gzip -9": 8 * len(gzip.compress(stream, compresslevel=9)) / len(stream),
        "xz -9": 8 * len(lzma.compress(stream, preset=9)) / len(stream),
    }


def _bigram(corpus: Corpus, validation: list[bytes]) -> float:
    counts = np.zeros((257, 256), np.int64)
    for document in corpus.documents("train"):
        counts += _pairs(document.text.encode())
    single = (counts.sum(0) + 1) / (counts.sum() + 256)
    kinds = np.maximum((counts > 0).sum(1, keepdims=True), 1)
    probabilities = (counts + kinds * single) / (counts.sum(1, keepdims=True) + kinds)
    seen = sum(_pairs(content) for content in validation)
    return float(-(seen * np.log2(probabilities)).sum() / np.sum(seen))


def _pairs(content: bytes) -> NDArray[np.int64]:
    """(257, 256) how often each byte follows each other one, or the start."""
    following = np.frombuffer(content, np.uint8).astype(np.int64)
    before = np.concatenate([[START], following[:-1]])
    return np.bincount(before * 256 + following, minlength=257 * 256).reshape(257, 256)
