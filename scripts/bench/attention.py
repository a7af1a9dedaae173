"""``benchmark.py attention``: time and peak memory of the kernels, forward and backward, over the sequence length.

A contestant is a kernel and a mask, ``blocked:window`` say. A length at which a kernel would need more than ``--most``
megabytes for its scores is left out.
"""

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.harness import Case, Contestant, Options, Prepare, add_common, progress, publish, race

KERNELS = ("eager", "sdpa", "blocked", "fastest", "flex")
MASKS = ("causal", "full", "window", "sinks", "global", "strided", "fixed", "bigbird")
DEFAULT = ["eager:causal", "sdpa:causal", "blocked:causal", "sdpa:window", "blocked:window"]


def contestant(kernel_name: str, mask_name: str) -> Callable[[Options], Prepare]:
    """One kernel on one mask."""

    def made(options: Options) -> Prepare:
        import torch

        from lit_transformer import blocks
        from lit_transformer.blocks import masks
        from lit_transformer.blocks.context import Visibility

        def prepare() -> Case:
            batch, heads, length, size = (options[key] for key in ("batch", "heads", "length", "head_dim"))
            dtype = torch.bfloat16 if options["precision"] == "bf16" else torch.float32
            kernel: blocks.Kernel = {
                "eager": blocks.EagerKernel,
                "sdpa": blocks.SdpaKernel,
                "blocked": blocks.BlockedKernel,
                "fastest": blocks.FastestKernel,
                "flex": blocks.FlexKernel,
            }[kernel_name]()
            causal, window = masks.Causal(), masks.SlidingWindow(options["window"])
            mask = {
                "causal": causal,
                "full": masks.Full(),
                "window": causal & window,
                "sinks": causal & (window | masks.Sinks(4)),
                "global": window | masks.GlobalTokens(16),
                "strided": causal & (window | masks.Dilated(options["window"])),
                "fixed": causal & masks.FixedSparse(),
                "bigbird": masks.BigBird(),
            }
            sites = masks.Sites(torch.arange(length).unsqueeze(0))
            shape = (batch, length, heads, size)  # heads stand side by side, as projections leave them
            q, k, v, dy = (torch.randn(shape).to(dtype).transpose(1, 2) for _ in range(4))
            leaves = [each.detach().requires_grad_() for each in (q, k, v)]

            def step() -> None:
                visible = Visibility(mask[mask_name], sites, sites)
                y = kernel(*leaves, visible)
                torch.autograd.grad(y, leaves, dy)

            return Case(step, tokens=batch * length)

        return prepare

    return made


CONTESTANTS = {f"{kernel}:{mask}": contestant(kernel, mask) for kernel in KERNELS for mask in MASKS}


def scores_megabytes(name: str, options: Options) -> float:
    """What a kernel holds of scores or masks, roughly, where it holds all of them."""
    square = options["length"] ** 2 / 2**20
    if name.startswith("eager"):
        return float(square * options["batch"] * options["heads"] * 4 * 4)
    return 0.0 if name.startswith("blocked") or name.endswith((":causal", ":full")) else square * 5


def add_parser(commands: Any) -> None:
    """The options of ``benchmark.py attention``."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "attention",
        help="time and memory of the attention kernels over the length",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: python scripts/benchmark.py attention --lengths 512 8192 --plot attention.png",
    )
    add_common(parser, rounds=3)
    parser.add_argument("--lengths", nargs="+", type=int, default=[512, 1024, 2048, 4096, 8192, 16384], metavar="T")
    for name, default in (("batch", 1), ("heads", 4), ("head-dim", 64), ("window", 256), ("most", 6000)):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"(default: {default})")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="type of q, k, v (default: fp32)")
    parser.add_argument("--contestants", nargs="+", choices=list(CONTESTANTS), default=DEFAULT, metavar="KERNEL:MASK")
    parser.add_argument("--plot", type=Path, help="draw time and memory over the length into this file")
    parser.set_defaults(run=main)


def main(arguments: argparse.Namespace) -> int:
    """One race for each length."""
    options = {key: getattr(arguments, key) for key in ("batch", "heads", "head_dim", "window", "precision", "threads")}
    found: list[Contestant] = []
    code = 0
    for length in arguments.lengths:
        options["length"] = length
        names = [n for n in arguments.contestants if scores_megabytes(n, options) <= arguments.most]
        for name in set(arguments.contestants) - set(names):
            progress(f"{name} at T = {length}: left out, more than {arguments.most} MB")
        contestants = race("attention", names, options, arguments.rounds, arguments.steps, progress)
        title = f"attention, forward and backward, T = {length}, " + ", ".join(f"{k} {v}" for k, v in options.items())
        code = (
            publish(arguments, title, options, contestants, ["sdpa:causal"], append=length != arguments.lengths[0])
            or code
        )
        print()
        for each in contestants:
            each.note = str(length)
        found += contestants
    if arguments.plot is not None:
        plot(found, arguments.plot)
    return code


def plot(found: list[Contestant], path: Path) -> None:
    """Time and memory over the length, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (time, memory) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for name in dict.fromkeys(each.name for each in found):
        rows = [each for each in found if each.name == name and each.seconds]
        lengths = [int(each.note) for each in rows]
        time.plot(lengths, [statistics.median(each.cpu_seconds) for each in rows], marker="o", label=name)
        memory.plot(lengths, [each.peak_bytes / 2**20 for each in rows], marker="o", label=name)
    time.set(title="CPU time, forward and backward", xlabel="T", ylabel="s", xscale="log", yscale="log")
    memory.set(title="peak memory", xlabel="T", ylabel="MB", xscale="log", yscale="log")
    time.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
