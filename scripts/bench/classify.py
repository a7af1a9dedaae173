"""``benchmark.py classify``: training steps of an encoder on rows of unlike length, per real token.

Every contestant trains on the same rows (lengths 5 to 128, as uniform as can be) with the same number of real tokens a
step; what differs is how rows are put together and who computes. Time is per *real* token, padding included. The peers
are padded to the longest row of a random batch, as their users do by default, and, where the name says so, bucketed as
ours are. No dropout, fused AdamW over all parameters.
"""

import argparse
from collections.abc import Callable
from typing import Any

from bench.harness import Case, Options, Prepare
from bench.sized import SizedRace
from bench.train import precision

SIZES = {
    "small": {"d_model": 256, "layers": 4, "heads": 4, "vocab": 8000, "rows": 512, "batch": 32, "longest": 128},
    "tiny": {"d_model": 64, "layers": 1, "heads": 2, "vocab": 500, "rows": 16, "batch": 4, "longest": 32},
}
SHORTEST = 5
CLASSES = 2


def lengths(options: Options) -> list[int]:
    """Tokens of each row, in a random order, the same for all contestants."""
    import torch

    generator = torch.Generator().manual_seed(0)
    spread = torch.linspace(SHORTEST, options["longest"], options["rows"]).round().long()
    return [int(n) for n in spread[torch.randperm(options["rows"], generator=generator)]]


def random_batches(options: Options) -> list[list[int]]:
    """Rows as they come, ``batch`` at a time."""
    order = list(range(options["rows"]))
    return [order[start : start + options["batch"]] for start in range(0, len(order), options["batch"])]


def bucketed_batches(options: Options) -> list[list[int]]:
    """What our loader makes of them: about as many tokens a batch as random batches have real ones."""
    import numpy as np

    from lit_transformer.data.bucketing import TokenBudget

    sizes = np.array(lengths(options))
    budget = TokenBudget(max(int(sizes.sum()) * options["batch"] // options["rows"], options["longest"] + 8))
    return [batch.tolist() for batch in budget.cut(sizes, np.random.RandomState(0))]


def padded(options: Options, batches: list[list[int]], multiple: int) -> tuple[list[tuple[Any, Any, Any]], int, float]:
    """Batches of (tokens, real, labels), the number of real tokens, and places per real token."""
    import torch

    sizes = lengths(options)
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randint(4, options["vocab"], (n,), generator=generator) for n in sizes]
    labels = torch.randint(CLASSES, (len(rows),), generator=generator)
    made, places = [], 0
    for batch in batches:
        width = -(-max(sizes[i] for i in batch) // multiple) * multiple
        tokens = torch.zeros(len(batch), width, dtype=torch.long)
        for place, i in enumerate(batch):
            tokens[place, : sizes[i]] = rows[i]
        made.append((tokens, tokens > 0, labels[batch]))
        places += tokens.numel()
    return made, sum(sizes), places / sum(sizes)


def training(
    options: Options, model: Any, scores: Callable[[Any, Any], Any], batches: list[list[int]], multiple: int = 1
) -> Case:
    """A pass over all rows, an update a batch."""
    import torch
    from torch.nn import functional

    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    made, real, ratio = padded(options, batches, multiple)
    context = precision(options)

    def step() -> float:
        loss = 0.0
        for tokens, mask, labels in made:
            optimizer.zero_grad(set_to_none=True)
            with context():
                value = functional.cross_entropy(scores(tokens, mask).float(), labels)
            value.backward()
            optimizer.step()
            loss += float(value.detach())
        return loss / len(made)

    parameters = sum(p.numel() for p in model.parameters())
    return Case(step, tokens=real, parameters=parameters, note=f"{ratio:.2f} places a token")


def bert(options: Options, batches: Callable[[Options], list[list[int]]], multiple: int) -> Prepare:
    """`transformers` BERT with SDPA and its pooler."""
    from transformers import BertConfig, BertForSequenceClassification

    def prepare() -> Case:
        config = BertConfig(
            vocab_size=options["vocab"],
            hidden_size=options["d_model"],
            num_hidden_layers=options["layers"],
            num_attention_heads=options["heads"],
            intermediate_size=4 * options["d_model"],
            max_position_embeddings=options["longest"] + 8,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            num_labels=CLASSES,
            attn_implementation="sdpa",
        )
        model = BertForSequenceClassification(config)
        return training(
            options, model, lambda x, real: model(input_ids=x, attention_mask=real).logits, batches(options), multiple
        )

    return prepare


def torch_nn(options: Options, batches: Callable[[Options], list[list[int]]], multiple: int) -> Prepare:
    """torch.nn.TransformerEncoder with learned positions, the first token classified."""
    import torch
    from torch import nn

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            d_model = options["d_model"]
            self.tokens = nn.Embedding(options["vocab"], d_model)
            self.positions = nn.Embedding(options["longest"] + 8, d_model)
            layer = nn.TransformerEncoderLayer(
                d_model, options["heads"], 4 * d_model, dropout=0.0, activation="gelu", batch_first=True
            )
            self.layers = nn.TransformerEncoder(layer, options["layers"], enable_nested_tensor=False)
            self.head = nn.Linear(d_model, CLASSES)

        def forward(self, ids: torch.Tensor, real: torch.Tensor) -> Any:
            hidden = self.tokens(ids) + self.positions.weight[: ids.shape[1]]
            return self.head(self.layers(hidden, src_key_padding_mask=~real)[:, 0])

    def prepare() -> Case:
        model = Encoder()
        return training(options, model, lambda x, real: model(x, real), batches(options), multiple)

    return prepare


def ours(options: Options) -> Prepare:
    """lit_transformer's encoder with BERT's parts and pooler, batches as its loader makes them."""
    from functools import partial

    import torch

    from lit_transformer.blocks.attention import Attention
    from lit_transformer.blocks.feed_forward import MLP
    from lit_transformer.blocks.layer import Layer
    from lit_transformer.blocks.norms import LayerNorm
    from lit_transformer.blocks.pooling import FirstTokenTanh, LabelHead
    from lit_transformer.blocks.position import Learned
    from lit_transformer.blocks.residual import PostNorm
    from lit_transformer.dims import Dims
    from lit_transformer.networks import EncoderOnly, Normal, initialise
    from lit_transformer.vocabulary import Vocabulary

    def prepare() -> Case:
        dims = Dims(options["d_model"], options["layers"], options["heads"], max_len=options["longest"] + 8)
        parts = {"attention": partial(Attention, bias=True), "feed_forward": partial(MLP, bias=True)}
        layer = partial(Layer, norm=LayerNorm, residual=PostNorm, **parts)
        network = EncoderOnly(Vocabulary(options["vocab"]), dims, layer, Learned)
        head = LabelHead(network.dims, CLASSES, FirstTokenTanh)
        initialise(head, Normal(), 0, 1)

        def scores(tokens: Any, real: Any) -> Any:
            documents = None if real.all() else torch.where(real, 0, -1)
            return head(network(tokens, documents=documents).hidden, documents)

        both = torch.nn.ModuleList([network, head])
        return training(options, both, scores, bucketed_batches(options), 8)

    return prepare


CONTESTANTS: dict[str, Callable[[Options], Prepare]] = {
    "ours": ours,
    "bert": lambda options: bert(options, random_batches, 1),
    "bert-bucketed": lambda options: bert(options, bucketed_batches, 8),
    "torch.nn": lambda options: torch_nn(options, random_batches, 1),
    "torch.nn-bucketed": lambda options: torch_nn(options, bucketed_batches, 8),
}


RACE = SizedRace(
    "classify",
    "classification",
    SIZES,
    {
        "rows": "rows of a step",
        "batch": "rows of a batch",
    },
    CONTESTANTS,
    references=("bert", "bert-bucketed", "torch.nn"),
    rounds=5,
    remarks=["Tokens are real ones: padding is nobody's."],
)


def add_parser(commands: Any) -> None:
    """The options of ``benchmark.py classify``."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "classify",
        help="training an encoder on rows of unlike length: ours, transformers' BERT, torch.nn",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: python scripts/benchmark.py classify --precision bf16 --contestants ours bert --rounds 5",
    )
    RACE.add_arguments(parser)
