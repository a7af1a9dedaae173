"""The label head of a classifier, from its checkpoint."""

from collections.abc import Callable

import torch

from lit_transformer.blocks.pooling import LabelHead, Mean, Pooling
from lit_transformer.checkpoints.loading import Loaded, fill
from lit_transformer.dims import Dims
from lit_transformer.errors import LitTransformerError, UserError

_PREFIX = "label_head."  # the task's attribute


def load_label_head(loaded: Loaded) -> tuple[LabelHead, tuple[str, ...]]:
    """The label head beside a network, in evaluation mode, and the names of its classes.

    Like the network it is built without memory first, and compared with the weights.

    Raises:
        UserError: The checkpoint is no classifier's, or its parts do not fit together.
    """
    from lit_transformer.recipe.building import build

    names = loaded.checkpoint.get("classes")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{loaded.path}: holds no classes: it was not trained by Classification")
    config = loaded.arguments.get("pooling")
    pooling: Callable[[Dims], Pooling] = Mean
    try:
        if config is not None:
            pooling = build(Callable[[Dims], Pooling], config, source=str(loaded.path))
        with torch.device("meta"):
            head = LabelHead(loaded.network.dims, len(names), pooling)
    except LitTransformerError:
        raise
    except Exception as error:  # whatever a part's constructor makes of a stranger's values
        said = " ".join(str(error).split())[:200]
        raise UserError(f"{loaded.path}: its label head cannot be built: {said}") from error
    values = {name.removeprefix(_PREFIX): value for name, value in loaded.others.items() if name.startswith(_PREFIX)}
    fill(head, values, f"{loaded.path}, its label head")
    return head.eval(), tuple(names)
