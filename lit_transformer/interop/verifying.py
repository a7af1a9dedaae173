"""Whether a folder computes what a network computes: the logits of both, on tokens drawn at random."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_transformer.errors import UserError
from lit_transformer.interop.families import family_of
from lit_transformer.networks.base import Network

SAMPLE = 'def add(a, b):\n    """Adds two numbers."""\n    return a + b  # naïve, 1 234'
"""A text for the tokenizers."""

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}
"""Largest difference over the largest logit; in other types 0.05."""


@dataclass(frozen=True)
class Verdict:
    """How far the outputs of two networks are apart.

    Args:
        difference: Largest difference.
        largest: Largest output.
        what: What was compared: logits or hidden states.
    """

    difference: float
    largest: float
    what: str = "logits"

    def line(self, folder: str) -> str:
        """For the user."""
        apart = f"{self.what} differ by at most {self.difference:.2g} (the largest is {self.largest:.3g})"
        return f"{folder}: verified, {apart}"


def tokens_for(network: Network) -> tuple[Tensor, Tensor]:
    """Tokens (2, T) at random, and which of them are real: the second row is padded on the right."""
    longest = min(24, network.dims.max_len or 24)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(network.vocabulary.size, (2, longest), generator=generator)
    pad = network.vocabulary.pad_id
    if pad is not None and network.vocabulary.size > 1:
        tokens[tokens == pad] = (pad + 1) % network.vocabulary.size
    return tokens, torch.arange(longest) < torch.tensor([[longest], [max(1, longest * 2 // 3)]])


def _verdict(folder: str | Path, found: Tensor, wanted: Tensor, dtype: torch.dtype, what: str) -> Verdict:
    if found.shape != wanted.shape:
        raise UserError(
            f"{folder}: its {what} have the shape {tuple(found.shape)}, the checkpoint's {tuple(wanted.shape)}"
        )
    largest = float(wanted.abs().max())
    difference = float((found.double() - wanted.double()).abs().max())
    allowed = TOLERANCE.get(dtype, 0.05) * max(1.0, largest)
    if not difference <= allowed:
        raise UserError(
            f"{folder}: its {what} differ from the checkpoint's by {difference:.3g} (allowed: {allowed:.2g})"
        )
    return Verdict(difference, largest, what)


@torch.inference_mode()
def compare(folder: str | Path, network: Network, tokenizer: str | None = None) -> Verdict:
    """Compares with what ``transformers`` makes of the folder, tokenizer included.

    Args:
        folder: A folder in the Hugging Face layout.
        network: The network.
        tokenizer: Its ``tokenizer.json``, or one with roles around it; left out: not compared.

    Raises:
        UserError: They differ, the folder does not load, or ``transformers`` is not there.
    """
    try:
        import transformers
    except ImportError:
        raise UserError("--verify: needs transformers; pip install 'lit-transformer[hf]'") from None
    values = json.loads((Path(folder) / "config.json").read_text("utf-8"))
    family = family_of(values["model_type"], f"{folder}/config.json")
    body = family.base is not None and values.get("architectures") == [family.base]
    messages: Any = transformers.logging
    messages.set_verbosity_error()
    messages.disable_progress_bar()
    auto: Any = getattr(transformers, "AutoModel" if body else family.auto_class)
    try:
        model = auto.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False).eval()
    except Exception as error:  # whatever the library raises
        raise UserError(f"{folder}: transformers cannot load it: {' '.join(str(error).split())[:200]}") from error
    weight = next(network.parameters())
    model = model.to(weight.dtype)
    tokens, real = tokens_for(network)
    inputs: dict[str, Any] = {"input_ids": tokens, "attention_mask": real.long()}
    if network.reads_apart:
        target = tokens.flip(0)
        theirs = model(**inputs, decoder_input_ids=target)
        ours = network(target, source=tokens, source_documents=real.long() - 1)
        real = torch.ones_like(real)
    else:
        theirs = model(**inputs)
        ours = network(tokens, documents=real.long() - 1)
    what = "hidden states" if body else "logits"
    found = theirs[0] if body else theirs.logits
    wanted = ours.hidden if body else ours.logits
    verdict = _verdict(folder, found[real], wanted[real], weight.dtype, what)
    if tokenizer is not None:
        _compare_tokenizers(folder, tokenizer, transformers)
    return verdict


def _compare_tokenizers(folder: str | Path, tokenizer: str, transformers: Any) -> None:
    import tokenizers

    content = json.loads(tokenizer)
    content = content["tokenizer"] if content.keys() == {"special_tokens", "tokenizer"} else content
    ours = tokenizers.Tokenizer.from_str(json.dumps(content))
    theirs = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    wanted = ours.encode(SAMPLE, add_special_tokens=False).ids
    found = theirs.encode(SAMPLE, add_special_tokens=False)
    if found != wanted:
        raise UserError(f"{folder}: AutoTokenizer makes other tokens of a text: {found[:8]} ... for {wanted[:8]} ...")


@torch.inference_mode()
def compare_native(folder: str | Path, network: Network) -> Verdict:
    """Compares with what this program makes of the folder.

    Raises:
        UserError: They differ.
    """
    from lit_transformer.interop.incoming import read_folder

    again = read_folder(folder).network()
    tokens, real = tokens_for(network)
    more: dict[str, Any] = {"source": tokens, "source_documents": real.long() - 1} if network.reads_apart else {}
    documents = None if network.reads_apart else real.long() - 1
    weight = next(network.parameters())
    found = again.to(weight.dtype)(tokens, documents=documents, **more).logits
    wanted = network(tokens, documents=documents, **more).logits
    return _verdict(folder, found[real], wanted[real], weight.dtype, "logits")
