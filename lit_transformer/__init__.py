"""lit_transformer: train, understand and compare Transformers."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from lit_transformer.checkpoints.loading import Weights
    from lit_transformer.generation import Model

__version__ = "0.1.0"


def load(path: "str | Path", device: str = "auto", weights: "Weights" = "auto") -> "Model":
    """A trained model to use: ``load("runs/...").generate("Once upon a time")``.

    Args:
        path: A checkpoint file, or a run folder: its best checkpoint.
        device: ``cpu``, ``cuda``, ``mps``; ``auto`` is the fastest there is.
        weights: ``ema`` the average, ``raw`` the trained ones, ``auto`` the average where there is one.

    Raises:
        UserError: No good checkpoint there, or one without a tokenizer.
    """
    from lit_transformer.trained import load_model

    return load_model(path, device, weights)
