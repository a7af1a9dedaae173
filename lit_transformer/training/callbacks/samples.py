"""What the model writes, at every validation."""

import html
from typing import cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from lit_transformer.generation import sample_text
from lit_transformer.networks.base import Network
from lit_transformer.training.gathering import gathered, is_spread


class Samples(Callback):
    """Writes generated text to TensorBoard (``samples``) after each validation, of tasks and networks that write text.

    Args:
        prompts: Beginnings to go on from; an empty one starts a document.
        max_new_tokens: Tokens to generate.
        temperature: Sharpness of the sampling; 0 takes the likeliest token.
        top_k: Sample among this many likeliest tokens.
        seed: Seed of the sampling, the same at every validation so that samples compare.
    """

    def __init__(
        self,
        prompts: list[str] | None = None,
        max_new_tokens: int = 128,
        temperature: float = 0.8,
        top_k: int = 40,
        seed: int = 0,
    ) -> None:
        self.prompts = [""] if prompts is None else prompts
        self.max_new_tokens = max_new_tokens
        self.temperature = temperature
        self.top_k = top_k
        self.seed = seed
        self.latest: list[str] = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Generates on the first rank; where the network is spread over ranks, on all of them."""
        tokenizer = getattr(getattr(trainer, "datamodule", None), "tokenizer", None)
        if (
            trainer.sanity_checking
            or not (trainer.is_global_zero or is_spread(pl_module))
            or tokenizer is None
            or trainer.state.fn != TrainerFn.FITTING
        ):
            return
        network = cast(Network, pl_module.network)
        decodes = type(network).new_cache is not Network.new_cache
        if not decodes or not getattr(pl_module, "writes_text", True):
            return
        with gathered(network), trainer.precision_plugin.val_step_context():
            self.latest = [
                sample_text(network, tokenizer, prompt, self.max_new_tokens, self.temperature, self.top_k, self.seed)
                for prompt in self.prompts
            ]
        # Escaped and as a code block: TensorBoard renders Markdown, and would fetch an image that a sample names.
        text = "\n\n".join("\n".join("    " + html.escape(line) for line in each.split("\n")) for each in self.latest)
        for logger in trainer.loggers if trainer.is_global_zero else ():
            add = getattr(getattr(logger, "experiment", None), "add_text", None)
            if add is not None:
                add("samples", text, trainer.global_step)
