"""``benchmark.py seq2seq``: one training step (forward, loss, backward, AdamW) of an encoder-decoder for translation.

Contestants have one vocabulary and tied embeddings, no dropout, fused AdamW over all parameters, no clipping, the same
random tokens without padding. See ``train.py`` for how they are written.
"""

import argparse
from collections.abc import Callable
from typing import Any

from bench.harness import Case, Options, Prepare
from bench.sized import SizedRace
from bench.train import cross_entropy, precision

SIZES = {
    "small": {
        "d_model": 256,
        "layers": 3,
        "heads": 8,
        "feed_forward": 1024,
        "source": 32,
        "target": 32,
        "vocab": 8000,
        "batch": 64,
    },
    "tiny": {
        "d_model": 32,
        "layers": 1,
        "heads": 2,
        "feed_forward": 64,
        "source": 6,
        "target": 5,
        "vocab": 50,
        "batch": 4,
    },
}


def pairs(options: Options) -> tuple[Any, Any, Any]:
    """Random sources, inputs of the decoder and targets, the same for all contestants."""
    import torch

    generator = torch.Generator().manual_seed(0)
    source = torch.randint(2, options["vocab"], (options["batch"], options["source"]), generator=generator)
    target = torch.randint(2, options["vocab"], (options["batch"], options["target"] + 1), generator=generator)
    return source, target[:, :-1].contiguous(), target[:, 1:].contiguous()


def training(options: Options, model: Any, loss_of: Callable[[Any, Any, Any], Any]) -> Case:
    """A step of any model, given how its loss is computed from sources, inputs and targets."""
    import torch

    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    source, inputs, targets = pairs(options)
    context = precision(options)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        with context():
            loss = loss_of(source, inputs, targets)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    parameters = sum(p.numel() for p in model.parameters())
    return Case(step, tokens=targets.numel(), parameters=parameters)


def torch_nn(options: Options) -> Prepare:
    """``torch.nn.Transformer`` with embeddings, sinusoidal positions and a head, post-norm as in its defaults."""
    import torch
    from torch import nn

    class Seq2Seq(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            d_model, longest = options["d_model"], max(options["source"], options["target"])
            self.tokens = nn.Embedding(options["vocab"], d_model)
            angles = torch.arange(longest)[:, None] / 10000 ** (torch.arange(0, d_model, 2) / d_model)
            positions = torch.stack((angles.sin(), angles.cos()), -1).flatten(1)
            self.register_buffer("positions", positions, persistent=False)
            self.transformer = nn.Transformer(
                d_model,
                options["heads"],
                options["layers"],
                options["layers"],
                options["feed_forward"],
                dropout=0.0,
                batch_first=True,
            )
            self.head = nn.Linear(d_model, options["vocab"], bias=False)
            self.head.weight = self.tokens.weight
            mask = nn.Transformer.generate_square_subsequent_mask(options["target"])
            self.register_buffer("mask", mask, persistent=False)
            nn.init.normal_(self.tokens.weight, std=0.02)

        def embed(self, ids: torch.Tensor) -> Any:
            return self.tokens(ids) * options["d_model"] ** 0.5 + self.positions[: ids.shape[1]]

        def forward(self, source: torch.Tensor, inputs: torch.Tensor) -> Any:
            hidden = self.transformer(self.embed(source), self.embed(inputs), tgt_mask=self.mask, tgt_is_causal=True)
            return self.head(hidden)

    def prepare() -> Case:
        model = Seq2Seq()
        return training(options, model, lambda s, x, y: cross_entropy(model(s, x), y))

    return prepare


def marian(options: Options) -> Prepare:
    """`transformers` Marian with SDPA."""
    from transformers import MarianConfig, MarianMTModel

    def prepare() -> Case:
        config = MarianConfig(
            vocab_size=options["vocab"],
            decoder_vocab_size=options["vocab"],
            max_position_embeddings=max(options["source"], options["target"]),
            d_model=options["d_model"],
            encoder_layers=options["layers"],
            decoder_layers=options["layers"],
            encoder_attention_heads=options["heads"],
            decoder_attention_heads=options["heads"],
            encoder_ffn_dim=options["feed_forward"],
            decoder_ffn_dim=options["feed_forward"],
            activation_function="relu",
            dropout=0.0,
            attention_dropout=0.0,
            activation_dropout=0.0,
            encoder_layerdrop=0.0,
            decoder_layerdrop=0.0,
            scale_embedding=True,
            pad_token_id=0,
            eos_token_id=1,
            decoder_start_token_id=0,
            use_cache=False,
            attn_implementation="sdpa",
        )
        model = MarianMTModel(config)

        def loss(source: Any, inputs: Any, targets: Any) -> Any:
            return cross_entropy(model(input_ids=source, decoder_input_ids=inputs).logits, targets)

        return training(options, model, loss)

    return prepare


def ours(options: Options, layer: Callable[..., Any], position: type, embedding: type) -> Prepare:
    """lit_transformer's encoder-decoder, with the kernel and the loss that a recipe gets."""
    from lit_transformer.blocks.loss import ChunkedCrossEntropy
    from lit_transformer.dims import Dims
    from lit_transformer.networks.encoder_decoder import EncoderDecoder
    from lit_transformer.vocabulary import Vocabulary

    def prepare() -> Case:
        dims = Dims(
            options["d_model"],
            options["layers"],
            options["heads"],
            d_ff=options["feed_forward"],
            max_len=max(options["source"], options["target"]),
        )
        model = EncoderDecoder(Vocabulary(options["vocab"]), dims, layer, position, embedding=embedding)
        measure = ChunkedCrossEntropy()

        def loss(source: Any, inputs: Any, targets: Any) -> Any:
            output = model(inputs, source=source)
            return measure(output.hidden, output.head, targets) / targets.numel()

        return training(options, model, loss)

    return prepare


def ours_original(options: Options) -> Prepare:
    """Ours with the parts of the original Transformer, which both peers have."""
    from functools import partial

    from lit_transformer.blocks.attention import Attention
    from lit_transformer.blocks.cross_attention import CrossAttention
    from lit_transformer.blocks.embedding import ScaledEmbedding
    from lit_transformer.blocks.feed_forward import MLP, ReLU
    from lit_transformer.blocks.layer import Layer
    from lit_transformer.blocks.norms import LayerNorm
    from lit_transformer.blocks.position import Sinusoidal
    from lit_transformer.blocks.residual import PostNorm

    layer = partial(
        Layer,
        attention=partial(Attention, bias=True),
        cross_attention=partial(CrossAttention, bias=True),
        feed_forward=partial(MLP, activation=ReLU, bias=True),
        norm=LayerNorm,
        residual=PostNorm,
    )
    return ours(options, layer, Sinusoidal, ScaledEmbedding)


def ours_modern(options: Options) -> Prepare:
    """Ours with today's parts: RoPE, RMSNorm, SwiGLU with as many weights, pre-norm, no biases."""
    from dataclasses import replace
    from functools import partial

    from lit_transformer.blocks.embedding import Embedding
    from lit_transformer.blocks.feed_forward import SwiGLU
    from lit_transformer.blocks.layer import Layer
    from lit_transformer.blocks.position import RoPE

    width = 32 * round(2 * options["feed_forward"] / 3 / 32)

    def feed_forward(dims: Any) -> Any:
        return SwiGLU(replace(dims, d_ff=width))

    return ours(options, partial(Layer, feed_forward=feed_forward), RoPE, Embedding)


def floor(options: Options) -> Prepare:
    """The matrix products of the original shape and nothing else: forward, dX, dW; attention's products in full."""
    import torch

    def prepare() -> Case:
        dtype = torch.bfloat16 if options["precision"] == "bf16" else torch.float32
        d_model, wide, batch = options["d_model"], options["feed_forward"], options["batch"]
        size, heads = d_model // options["heads"], batch * options["heads"]

        def linear(length: int, n_in: int, n_out: int) -> Callable[[], None]:
            rows = batch * length
            x, w, y = (torch.randn(*shape).to(dtype) for shape in ((rows, n_in), (n_out, n_in), (rows, n_out)))
            dx, dw, out = torch.empty_like(x), torch.empty_like(w), torch.empty_like(y)

            def run() -> None:
                torch.mm(x, w.t(), out=out)
                torch.mm(y, w, out=dx)
                torch.mm(y.t(), x, out=dw)

            return run

        def attention(queries: int, keys: int) -> Callable[[], None]:
            q, k, v = (torch.randn(heads, n, size).to(dtype) for n in (queries, keys, keys))
            p = torch.randn(heads, queries, keys).to(dtype)
            out_p, out_q, out_k = torch.empty_like(p), torch.empty_like(q), torch.empty_like(k)

            def run() -> None:
                for left, right, out in ((q, k.mT, out_p), (p, v, out_q), (p.mT, q, out_k)):  # and once more backward
                    torch.bmm(left, right, out=out)
                    torch.bmm(left, right, out=out)

            return run

        s, t = options["source"], options["target"]
        encoder = [linear(s, d_model, 3 * d_model), attention(s, s), linear(s, d_model, d_model)]
        encoder += [linear(s, d_model, wide), linear(s, wide, d_model)]
        decoder = [linear(t, d_model, 3 * d_model), attention(t, t), linear(t, d_model, d_model)]
        decoder += [linear(t, d_model, d_model), linear(s, d_model, 2 * d_model), attention(t, s)]
        decoder += [linear(t, d_model, d_model), linear(t, d_model, wide), linear(t, wide, d_model)]
        head = linear(t, d_model, options["vocab"])

        def step() -> None:
            for product in (encoder + decoder) * options["layers"]:
                product()
            head()

        return Case(step, tokens=batch * t)

    return prepare


CONTESTANTS: dict[str, Callable[[Options], Prepare]] = {
    "ours-original": ours_original,
    "ours-modern": ours_modern,
    "torch.nn": torch_nn,
    "marian": marian,
    "floor": floor,
}


RACE = SizedRace(
    "seq2seq",
    "encoder-decoder training step",
    SIZES,
    {
        "d_model": "width",
        "layers": "number of layers of each half",
        "heads": "number of heads",
        "feed_forward": "width of the feed-forward",
        "source": "tokens in a source",
        "target": "tokens in a target",
        "vocab": "vocabulary size",
        "batch": "pairs in a step",
    },
    CONTESTANTS,
    references=("floor", "torch.nn", "marian"),
)


def add_parser(commands: Any) -> None:
    """The options of ``benchmark.py seq2seq``."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "seq2seq",
        help="one training step of an encoder-decoder: ours, torch.nn.Transformer, transformers' Marian, the floor",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: python scripts/benchmark.py seq2seq --rounds 5 --contestants ours-original torch.nn marian",
    )
    RACE.add_arguments(parser)
