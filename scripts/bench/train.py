"""``benchmark.py train``: one training step (forward, loss, backward, AdamW) of a decoder-only language model.

Each contestant is a function of the options that imports what it needs and returns a function that builds its ``Case``;
the split lets peak memory be counted from after the imports. All have tied embeddings, no dropout, fused AdamW over all
parameters, no clipping, the same random tokens.
"""

import argparse
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from bench.harness import Case, Options, Prepare
from bench.sized import SizedRace

SIZES = {
    "small": {"d_model": 384, "layers": 6, "heads": 6, "context": 256, "vocab": 65, "batch": 4},
    "large": {"d_model": 768, "layers": 4, "heads": 12, "context": 512, "vocab": 50257, "batch": 1},
    "tiny": {"d_model": 64, "layers": 1, "heads": 2, "context": 32, "vocab": 65, "batch": 4},
}


def gated_size(options: Options) -> int:
    """Hidden width of a gated feed-forward with as many weights as a plain one of ``4 d``."""
    return 64 * round(8 * options["d_model"] / 3 / 64)


def tokens(options: Options) -> tuple[Any, Any]:
    """Random inputs and targets, the same for all contestants."""
    import torch

    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(options["vocab"], (options["batch"], options["context"] + 1), generator=generator)
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


def precision(options: Options) -> Callable[[], AbstractContextManager[Any]]:
    """The context of forward and loss; it is closed before backward, as PyTorch advises."""
    import torch

    return (lambda: torch.autocast("cpu", torch.bfloat16)) if options["precision"] == "bf16" else nullcontext


def training(options: Options, model: Any, loss_of: Callable[[Any, Any], Any], note: str = "") -> Case:
    """A step of any model, given how its loss is computed from inputs and targets."""
    import torch

    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    inputs, targets = tokens(options)
    context = precision(options)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        with context():
            loss = loss_of(inputs, targets)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    parameters = sum(p.numel() for p in model.parameters())
    return Case(step, tokens=inputs.numel(), parameters=parameters, note=note)


def cross_entropy(logits: Any, targets: Any) -> Any:
    """The loss of contestants that bring none."""
    from torch.nn import functional

    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def gpt2(options: Options) -> Prepare:
    """`transformers` GPT-2 with SDPA and its own loss."""
    from transformers import GPT2Config, GPT2LMHeadModel

    def prepare() -> Case:
        config = GPT2Config(
            vocab_size=options["vocab"],
            n_positions=options["context"],
            n_embd=options["d_model"],
            n_layer=options["layers"],
            n_head=options["heads"],
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=0,
            eos_token_id=0,
            use_cache=False,
            attn_implementation="sdpa",
        )
        model = GPT2LMHeadModel(config)
        return training(options, model, lambda x, y: cross_entropy(model(input_ids=x).logits, y))

    return prepare


def llama(options: Options) -> Prepare:
    """`transformers` Llama (RMSNorm, SwiGLU, RoPE, all heads) with SDPA."""
    from transformers import LlamaConfig, LlamaForCausalLM

    def prepare() -> Case:
        config = LlamaConfig(
            vocab_size=options["vocab"],
            max_position_embeddings=options["context"],
            hidden_size=options["d_model"],
            intermediate_size=gated_size(options),
            num_hidden_layers=options["layers"],
            num_attention_heads=options["heads"],
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=0,
            use_cache=False,
            attn_implementation="sdpa",
        )
        model = LlamaForCausalLM(config)
        return training(options, model, lambda x, y: cross_entropy(model(input_ids=x).logits, y))

    return prepare


def x_transformers(options: Options) -> Prepare:
    """x-transformers with flash attention."""
    from x_transformers import Decoder, TransformerWrapper

    def prepare() -> Case:
        model = TransformerWrapper(
            num_tokens=options["vocab"],
            max_seq_len=options["context"],
            tie_embedding=True,
            attn_layers=Decoder(
                dim=options["d_model"],
                depth=options["layers"],
                heads=options["heads"],
                attn_dim_head=options["d_model"] // options["heads"],
                attn_flash=True,
            ),
        )
        return training(options, model, lambda x, y: cross_entropy(model(x), y))

    return prepare


def torch_nn(options: Options) -> Prepare:
    """A GPT made of torch.nn.TransformerEncoder with a causal mask."""
    import torch
    from torch import nn

    class GPT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            d_model, context = options["d_model"], options["context"]
            self.tokens = nn.Embedding(options["vocab"], d_model)
            self.positions = nn.Embedding(context, d_model)
            layer = nn.TransformerEncoderLayer(
                d_model,
                options["heads"],
                4 * d_model,
                dropout=0.0,
                activation="gelu",
                batch_first=True,
                norm_first=True,
            )
            self.layers = nn.TransformerEncoder(
                layer, options["layers"], norm=nn.LayerNorm(d_model), enable_nested_tensor=False
            )
            self.head = nn.Linear(d_model, options["vocab"], bias=False)
            self.head.weight = self.tokens.weight
            self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(context), persistent=False)
            nn.init.normal_(self.tokens.weight, std=0.02)

        def forward(self, ids: torch.Tensor) -> Any:
            hidden = self.tokens(ids) + self.positions.weight[: ids.shape[1]]
            return self.head(self.layers(hidden, mask=self.mask, is_causal=True))

    def prepare() -> Case:
        model = GPT()
        return training(options, model, lambda x, y: cross_entropy(model(x), y))

    return prepare


def floor(options: Options) -> Prepare:
    """The matrix products of the GPT-2 shape and nothing else: forward, dX, dW; causal attention counted half."""
    import torch

    def prepare() -> Case:
        dtype = torch.bfloat16 if options["precision"] == "bf16" else torch.float32
        d_model, context = options["d_model"], options["context"]
        rows, heads = options["batch"] * context, options["batch"] * options["heads"]
        size, half = d_model // options["heads"], math.ceil(context / 2)

        def linear(n_in: int, n_out: int) -> Callable[[], None]:
            x, w, y = torch.randn(rows, n_in), torch.randn(n_out, n_in), torch.randn(rows, n_out)
            x, w, y = x.to(dtype), w.to(dtype), y.to(dtype)
            dx, dw, out = torch.empty_like(x), torch.empty_like(w), torch.empty_like(y)

            def run() -> None:
                torch.mm(x, w.t(), out=out)
                torch.mm(y, w, out=dx)
                torch.mm(y.t(), x, out=dw)

            return run

        def attention() -> Callable[[], None]:
            q, k, v = (torch.randn(heads, n, size).to(dtype) for n in (half, context, context))
            p = torch.randn(heads, half, context).to(dtype)
            out_p, out_q, out_k = torch.empty_like(p), torch.empty_like(q), torch.empty_like(k)

            def run() -> None:
                torch.bmm(q, k.mT, out=out_p)  # scores
                torch.bmm(p, v, out=out_q)  # values
                torch.bmm(p.mT, q, out=out_k)  # dV
                torch.bmm(q, v.mT, out=out_p)  # dP
                torch.bmm(p, k, out=out_q)  # dQ
                torch.bmm(p.mT, q, out=out_k)  # dK

            return run

        layer = [
            linear(d_model, 3 * d_model),
            linear(d_model, d_model),
            linear(d_model, 4 * d_model),
            linear(4 * d_model, d_model),
            attention(),
        ]
        head = linear(d_model, options["vocab"])

        def step() -> None:
            for _ in range(options["layers"]):
                for product in layer:
                    product()
            head()

        parameters = 12 * d_model * d_model * options["layers"] + options["vocab"] * d_model
        return Case(step, tokens=rows, parameters=parameters)

    return prepare


def ours(options: Options, layer: Callable[..., Any], position: type) -> Prepare:
    """lit_transformer's decoder, with the defaults that a recipe gets."""
    from lit_transformer.blocks.loss import ChunkedCrossEntropy
    from lit_transformer.dims import Dims
    from lit_transformer.networks.decoder_only import DecoderOnly
    from lit_transformer.vocabulary import Vocabulary

    def prepare() -> Case:
        dims = Dims(options["d_model"], options["layers"], options["heads"], max_len=options["context"])
        model = DecoderOnly(Vocabulary(options["vocab"]), dims, layer, position)
        measure = ChunkedCrossEntropy()

        def loss(inputs: Any, targets: Any) -> Any:
            output = model(inputs)
            return measure(output.hidden, output.head, targets) / targets.numel()

        return training(options, model, loss)

    return prepare


def ours_gpt2(options: Options) -> Prepare:
    """Ours with GPT-2's parts: learned positions, LayerNorm, GELU, biases."""
    from functools import partial

    from lit_transformer.blocks.attention import Attention
    from lit_transformer.blocks.feed_forward import GELU, MLP
    from lit_transformer.blocks.layer import Layer
    from lit_transformer.blocks.norms import LayerNorm
    from lit_transformer.blocks.position import Learned

    feed_forward = partial(MLP, activation=partial(GELU, approximate="tanh"), bias=True)
    layer = partial(Layer, attention=partial(Attention, bias=True), feed_forward=feed_forward, norm=LayerNorm)
    return ours(options, layer, Learned)


def ours_llama(options: Options) -> Prepare:
    """Ours with Llama's parts: RoPE, RMSNorm, SwiGLU, no biases."""
    from functools import partial

    from lit_transformer.blocks.feed_forward import SwiGLU
    from lit_transformer.blocks.layer import Layer
    from lit_transformer.blocks.norms import RMSNorm
    from lit_transformer.blocks.position import RoPE

    def feed_forward(dims: Any) -> Any:
        from dataclasses import replace

        return SwiGLU(replace(dims, d_ff=gated_size(options)))

    return ours(options, partial(Layer, feed_forward=feed_forward, norm=RMSNorm), RoPE)


CONTESTANTS: dict[str, Callable[[Options], Prepare]] = {
    "ours-gpt2": ours_gpt2,
    "ours-llama": ours_llama,
    "gpt2": gpt2,
    "llama": llama,
    "x-transformers": x_transformers,
    "torch.nn": torch_nn,
    "floor": floor,
}


RACE = SizedRace(
    "train",
    "training step",
    SIZES,
    {
        "d_model": "width",
        "layers": "number of layers",
        "heads": "number of heads",
        "context": "tokens in a sequence",
        "vocab": "vocabulary size",
        "batch": "sequences in a step",
    },
    CONTESTANTS,
    references=("floor", "gpt2", "x-transformers"),
)


def add_parser(commands: Any) -> None:
    """The options of ``benchmark.py train``."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "train",
        help="one training step: ours, transformers, x-transformers, torch.nn, the floor",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: python scripts/benchmark.py train --size large --rounds 5 --contestants ours gpt2 gpt2+malloc",
    )
    RACE.add_arguments(parser)
