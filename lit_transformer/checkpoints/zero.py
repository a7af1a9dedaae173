"""Checkpoints that DeepSpeed wrote under ZeRO: folders with a part of the float32 weights from each rank."""

import importlib.util
from pathlib import Path
from typing import Any

from torch import Tensor

from lit_transformer.errors import UserError

_PREFIXES = ("_forward_module.", "module.")


def is_zero_checkpoint(path: Path) -> bool:
    """Whether a folder is one."""
    return (path / "latest").is_file() and any(path.glob("*/*_optim_states.pt"))


def read_zero(path: Path, trusted: bool) -> dict[str, Any]:
    """The float32 weights of a folder, put together by DeepSpeed's own program.

    Args:
        path: The folder that holds ``latest``.
        trusted: Whether the user said so: DeepSpeed's files are pickles, which can run code.

    Raises:
        UserError: They are not trusted, DeepSpeed is not installed, or it cannot make sense of them.
    """
    if not trusted:
        raise UserError(f"{path}: DeepSpeed's files can run code when they are opened; if you wrote them, add --trust")
    if importlib.util.find_spec("deepspeed") is None:
        raise UserError(f"{path}: is DeepSpeed's; to read it, pip install 'lit-transformer[deepspeed]'")
    from deepspeed.utils.zero_to_fp32 import (
        get_fp32_state_dict_from_zero_checkpoint,
    )

    try:
        weights: dict[str, Tensor] = get_fp32_state_dict_from_zero_checkpoint(str(path))
    except Exception as error:
        said = " ".join(str(error).split())[:160]
        raise UserError(f"{path}: DeepSpeed cannot put it together: {said}") from error
    return {**_beside(path), "state_dict": {_plain(name): value.detach().clone() for name, value in weights.items()}}


def _plain(name: str) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _beside(path: Path) -> dict[str, Any]:
    """What Lightning put into the file of the model: recipe, vocabulary, tokenizer."""
    import torch

    tag = (path / "latest").read_text(encoding="utf-8").strip()
    files = sorted((path / Path(tag).name).glob("*model_states.pt"))
    try:
        content: Any = torch.load(files[0], map_location="cpu", weights_only=True) if files else {}
    except Exception:  # more than plain data: the weights are all there is to read
        return {}
    return {key: value for key, value in content.items() if not isinstance(value, Tensor)}
