"""``benchmark.py generate``: prefill, decoding and beam search of ours, transformers and LitGPT with the same sizes.

Weights are random, decoding is greedy, nothing stops early. A step of ``decode`` is one token for every row of the
batch: the time of all tokens less the time of the first one, over their number, so that reading the prompt (and, with
ours, copying the weights into another layout) is not in it, nor in ``prefill`` what follows. ``whole`` is a whole call.
``beam`` is a whole search. The floor reads the bytes of the weights and of a cache of the mean length once.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

from bench.harness import Case, Options, Prepare, add_common, progress, publish, race
from bench.train import gated_size

Generate = Callable[[int], Any]
"""Completes the prompts by a number of tokens."""


def prompts(options: Options) -> Any:
    """Random prompts (B, T) without special tokens, the same for all contestants."""
    import torch

    generator = torch.Generator().manual_seed(0)
    return torch.randint(3, options["vocab"], (options["batch"], options["prompt"]), generator=generator)


def seconds(generate: Generate, tokens: int) -> tuple[float, float]:
    """Wall and CPU seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    generate(tokens)
    return time.perf_counter() - wall, time.process_time() - cpu


def case(options: Options, generate: Generate, parameters: int, note: str = "") -> Case:
    """What is measured of a contestant that completes the prompts."""
    new, batch = options["new"], options["batch"]

    def decode() -> tuple[float, float]:
        first, all_ = seconds(generate, 1), seconds(generate, new)
        wall, cpu = (max(b - a, 1e-9) / (new - 1) for a, b in zip(first, all_, strict=True))
        return wall, cpu

    step: Callable[[], tuple[float, float]] = {
        "decode": decode,
        "prefill": lambda: seconds(generate, 1),
        "whole": lambda: seconds(generate, new),
        "beam": lambda: seconds(generate, new),
    }[options["mode"]]
    tokens = {"decode": batch, "prefill": batch * options["prompt"]}.get(options["mode"], batch * new)
    return Case(step, tokens=tokens, parameters=parameters, note=note)


def ours(family: str, form: str = "") -> Callable[[Options], Prepare]:
    """lit_transformer's network with the parts of a family, by its cache (or without), its weights held as ``form``."""

    def made(options: Options) -> Prepare:
        from dataclasses import replace
        from functools import partial

        import torch

        from lit_transformer import blocks, generation, networks
        from lit_transformer.dims import Dims
        from lit_transformer.vocabulary import Vocabulary

        def prepare() -> Case:
            length = options["prompt"] + options["new"]
            vocabulary = Vocabulary(options["vocab"], max_len=length, bos_id=1, eos_id=2)
            dims = Dims(options["d_model"], options["layers"], options["heads"])
            if family == "gpt2":
                layer = partial(
                    blocks.Layer,
                    attention=partial(blocks.Attention, bias=True),
                    feed_forward=partial(blocks.MLP, activation=partial(blocks.GELU, approximate="tanh"), bias=True),
                    norm=blocks.LayerNorm,
                )
                network: Any = networks.DecoderOnly(vocabulary, dims, layer, blocks.Learned)
            elif family == "marian":
                layer = partial(
                    blocks.Layer,
                    attention=partial(blocks.Attention, bias=True),
                    cross_attention=partial(blocks.CrossAttention, bias=True),
                    feed_forward=partial(blocks.MLP, activation=blocks.GELU, bias=True),
                    norm=blocks.LayerNorm,
                    residual=blocks.PostNorm,
                )
                network = networks.EncoderDecoder(vocabulary, dims, layer, blocks.Sinusoidal)
            else:
                dims = replace(dims, d_ff=gated_size(options))
                network = networks.DecoderOnly(vocabulary, dims)
            parameters = network.parameter_count()
            rows = prompts(options).tolist()
            network.eval()
            if form in ("float16", "int8", "bfloat16"):
                held = {"float16": generation.Float16, "int8": generation.Int8, "bfloat16": generation.BFloat16}[form]
                network = generation.decoding_form(network, held(), options["batch"])

            def generate(tokens: int) -> None:
                if options["mode"] == "beam":
                    generation.beam_search(network, rows, beams=options["beams"], max_new_tokens=tokens, stop_ids=())
                elif form == "uncached":
                    uncached(tokens)
                else:
                    sampler = generation.Sampler()
                    generation.generate(network, rows, sampler=sampler, max_new_tokens=tokens, stop_ids=())

            @torch.inference_mode()
            def uncached(tokens: int) -> None:
                text = torch.tensor(rows)
                for _ in range(tokens):
                    output = network(text)
                    text = torch.cat((text, output.head(output.hidden[:, -1:]).argmax(-1)), 1)

            return case(options, generate, parameters)

        return prepare

    return made


def theirs(family: str, cache: str | None = None) -> Callable[[Options], Prepare]:
    """`transformers`' model of a family and its ``generate``."""

    def made(options: Options) -> Prepare:
        import torch
        import transformers

        def prepare() -> Case:
            ids = prompts(options)
            length = options["prompt"] + options["new"]
            special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
            if family == "gpt2":
                config: Any = transformers.GPT2Config(
                    vocab_size=options["vocab"], n_positions=length, n_embd=options["d_model"],
                    n_layer=options["layers"], n_head=options["heads"], **special,
                )  # fmt: skip
                model: Any = transformers.GPT2LMHeadModel(config)
            elif family == "marian":
                sides = {
                    f"{side}_{name}": value
                    for side in ("encoder", "decoder")
                    for name, value in (
                        ("layers", options["layers"]),
                        ("attention_heads", options["heads"]),
                        ("ffn_dim", 4 * options["d_model"]),
                    )
                }
                config = transformers.MarianConfig(
                    vocab_size=options["vocab"], d_model=options["d_model"], max_position_embeddings=length,
                    decoder_start_token_id=1, forced_eos_token_id=None, **sides, **special,
                )  # fmt: skip
                model = transformers.MarianMTModel(config)
            else:
                config = transformers.LlamaConfig(
                    vocab_size=options["vocab"], max_position_embeddings=length, hidden_size=options["d_model"],
                    intermediate_size=gated_size(options), num_hidden_layers=options["layers"],
                    num_attention_heads=options["heads"], tie_word_embeddings=True, **special,
                )  # fmt: skip
                model = transformers.LlamaForCausalLM(config)
            model.eval()
            more = {} if cache is None else {"cache_implementation": cache}

            @torch.inference_mode()
            def generate(tokens: int) -> None:
                model.generate(
                    ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, min_new_tokens=tokens,
                    do_sample=False, num_beams=options["beams"] if options["mode"] == "beam" else 1, **more,
                )  # fmt: skip

            return case(options, generate, sum(p.numel() for p in model.parameters()))

        return prepare

    return made


def litgpt(options: Options) -> Prepare:
    """LitGPT's Llama with its cache and its own loop."""
    import torch
    from litgpt import GPT, Config
    from litgpt.generate.base import next_token

    def prepare() -> Case:
        ids = prompts(options)
        config = Config(
            block_size=options["prompt"] + options["new"], padded_vocab_size=options["vocab"],
            vocab_size=options["vocab"], n_layer=options["layers"], n_head=options["heads"], n_embd=options["d_model"],
            rotary_percentage=1.0, parallel_residual=False, bias=False, norm_class_name="RMSNorm",
            mlp_class_name="LLaMAMLP", intermediate_size=gated_size(options),
        )  # fmt: skip
        model = GPT(config).eval()

        @torch.inference_mode()
        def generate(tokens: int) -> None:
            model.set_kv_cache(batch_size=options["batch"])
            position = torch.arange(ids.shape[1])
            if options["batch"] == 1:
                token = next_token(model, position, ids, temperature=0.0).view(1, 1)
            else:
                token = model(ids, position)[:, -1:].argmax(-1)
            for i in range(tokens - 1):
                place = torch.tensor([ids.shape[1] + i])
                if options["batch"] == 1:
                    token = next_token(model, place, token, temperature=0.0).view(1, 1)
                else:
                    token = model(token, place)[:, -1:].argmax(-1)
            model.clear_kv_cache()

        return case(options, generate, sum(p.numel() for p in model.parameters()))

    return prepare


def floor(options: Options) -> Prepare:
    """Reads the weights of the Llama shape and a cache of the mean length, and does nothing with them."""
    import torch

    def prepare() -> Case:
        d_model, batch = options["d_model"], options["batch"]
        per_layer = 4 * d_model * d_model + 3 * d_model * gated_size(options)
        length = options["prompt"] + options["new"] // 2
        layers = [[torch.randn(per_layer), torch.randn(2 * batch * length * d_model)] for _ in range(options["layers"])]
        head = torch.randn(options["vocab"] * d_model)

        def step() -> None:
            for weights, cache in layers:
                weights.sum()
                cache.sum()
            head.sum()

        return Case(step, tokens=batch, parameters=options["layers"] * per_layer + options["vocab"] * d_model)

    return prepare


CONTESTANTS: dict[str, Callable[[Options], Prepare]] = {
    "ours-llama": ours("llama"),
    "ours-gpt2": ours("gpt2"),
    "ours-marian": ours("marian"),
    "ours-llama:float16": ours("llama", "float16"),
    "ours-llama:int8": ours("llama", "int8"),
    "ours-llama:bfloat16": ours("llama", "bfloat16"),
    "ours-llama:uncached": ours("llama", "uncached"),
    "llama": theirs("llama"),
    "llama:static": theirs("llama", "static"),
    "gpt2": theirs("gpt2"),
    "gpt2:static": theirs("gpt2", "static"),
    "marian": theirs("marian"),
    "litgpt": litgpt,
    "floor": floor,
}
DEFAULTS = {
    "decode": ["ours-llama", "ours-gpt2", "llama", "llama:static", "gpt2", "gpt2:static", "litgpt", "floor"],
    "prefill": ["ours-llama", "ours-gpt2", "llama", "gpt2"],
    "whole": ["ours-llama", "ours-llama:uncached", "llama", "gpt2"],
    "beam": ["ours-llama", "llama", "ours-marian", "marian"],
}


def add_parser(commands: Any) -> None:
    """The options of ``benchmark.py generate``."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "generate",
        help="prefill, decoding, beam search: ours, transformers, LitGPT, the floor",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: python scripts/benchmark.py generate --mode decode --batches 1 8 --rounds 5",
    )
    add_common(parser, rounds=5)
    parser.add_argument("--mode", choices=sorted(DEFAULTS), default="decode", help="what is timed (default: decode)")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32], help="prompts at once (default: 1 8 32)")
    for name, what, value in (
        ("d-model", "width", 384),
        ("layers", "number of layers, of each side", 6),
        ("heads", "number of heads", 6),
        ("vocab", "vocabulary size", 65),
        ("prompt", "tokens of a prompt", 128),
        ("new", "new tokens", 128),
        ("beams", "beams of mode beam", 5),
    ):
        parser.add_argument(f"--{name}", type=int, default=value, help=f"{what} (default: {value})")
    parser.add_argument("--contestants", nargs="+", metavar="NAME", help=f"of {', '.join(CONTESTANTS)}")
    parser.set_defaults(run=main)


def main(arguments: argparse.Namespace) -> int:
    """Run the race for each batch size and print its table."""
    names: Sequence[str] = arguments.contestants or DEFAULTS[arguments.mode]
    if unknown := [name for name in names if name not in CONTESTANTS]:
        progress(f"benchmark: unknown contestant {unknown[0]!r}; there are {', '.join(CONTESTANTS)}")
        return 2
    keys = ("mode", "d_model", "layers", "heads", "vocab", "prompt", "new", "beams", "threads")
    options: Options = {key: getattr(arguments, key) for key in keys}
    code = 0
    for batch in arguments.batches:
        options["batch"] = batch
        contestants = race("generate", names, options, arguments.rounds, arguments.steps, progress)
        title = f"{arguments.mode}, batch {batch}, " + ", ".join(
            f"{key} {value}" for key, value in options.items() if key not in ("mode", "batch", "threads")
        )
        references = [name for name in ("floor", "llama", "gpt2", "marian", "litgpt") if name in names]
        code = publish(arguments, title, options, contestants, references, append=batch != arguments.batches[0]) or code
        print()
    return code
