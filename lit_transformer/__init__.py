"""lit_transformer: train, understand and compare Transformers."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from lit_transformer.generation import Model

__version__ = "0.1.0"


def load(path: "str | Path", device: str = "auto") -> "Model":
    """A trained model to use: ``load("runs/...").generate("Once upon a time")``.

    Args:
        path: A checkpoint file, or a run folder: its best checkpoint.
        device: ``cpu``, ``cuda``, ``mps``; ``auto`` is the fastest there is.

    Raises:
        UserError: No good checkpoint there, or one without a tokenizer.
    """
    from lit_transformer.checkpoints.finding import resolve
    from lit_transformer.checkpoints.loading import load_network
    from lit_transformer.data.tokenizer import Tokenizer
    from lit_transformer.errors import UserError
    from lit_transformer.generation import Model, device_of

    place = device_of(device)
    loaded = load_network(resolve(path))
    if loaded.tokenizer is None:
        raise UserError(f"{loaded.path}: holds no tokenizer: its network is no model of text")
    tokenizer = Tokenizer.from_json(loaded.tokenizer, name=f"{loaded.path}, its tokenizer")
    loaded.check_tokenizer(tokenizer)
    return Model(loaded.network.to(place), tokenizer)
