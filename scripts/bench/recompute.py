"""``benchmark.py recompute``: what keeping less of the forward pass saves in memory and costs in time.

The same training step of one Llama-like network, with nothing recomputed, all layers, every second one, and all but
the widest products. Activations are what a step allocates, counted where most of it lives at once, gradients too.
"""

import argparse
import weakref
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

from bench.harness import Case, add_common, progress, publish, race
from bench.train import SIZES, Options, Prepare, training


def plain(options: Options) -> Prepare:
    """Nothing recomputed."""
    return contestant(options, lambda network: None)


def every_layer(options: Options) -> Prepare:
    """Every layer keeps its input only."""
    from lit_transformer.training.recompute import recompute_layers

    return contestant(options, recompute_layers)


def every_second(options: Options) -> Prepare:
    """Every second layer keeps its input only."""
    from lit_transformer.training.recompute import recompute_layers

    return contestant(options, lambda network: recompute_layers(network, 2))


def selective(options: Options) -> Prepare:
    """Every layer keeps the outputs of attention and of its widening products too."""
    from lit_transformer.training.recompute import SelectiveRecompute, recompute_layers

    return contestant(options, lambda network: recompute_layers(network, 1, SelectiveRecompute.contexts))


def contestant(options: Options, change: Callable[[Any], Any]) -> Prepare:
    """A Llama-like network after ``change``; a step before the clock starts counts its activations."""
    from lit_transformer.blocks.loss import CrossEntropy
    from lit_transformer.dims import Dims
    from lit_transformer.networks import DecoderOnly
    from lit_transformer.vocabulary import Vocabulary

    def prepare() -> Case:
        dims = Dims(options["d_model"], options["layers"], options["heads"], max_len=options["context"])
        network = DecoderOnly(Vocabulary(options["vocab"]), dims)
        change(network)
        measure = CrossEntropy()

        def loss(inputs: Any, targets: Any) -> Any:
            output = network(inputs)
            return measure(output.hidden, output.head, targets) / targets.numel()

        case = training(options, network, loss)
        case.step()  # the optimizer's moments are there from now on
        with live_bytes() as count:
            case.step()
        case.note = f"activations {count.peak / 2**20:.0f} MB"
        return case

    return prepare


@contextmanager
def live_bytes() -> Any:
    """Counts the bytes of tensors that are made inside; ``peak`` is the most that lived at once."""
    from torch import Tensor
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Count(TorchDispatchMode):
        live = peak = 0
        known: Any = weakref.WeakValueDictionary()

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            known = {id(leaf.untyped_storage()) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
            result = func(*args, **(kwargs or {}))
            for leaf in tree_leaves(result):
                if isinstance(leaf, Tensor):
                    self.add(leaf.untyped_storage(), known)
            return result

        def add(self, storage: Any, given: set[int]) -> None:
            if id(storage) in given or self.known.get(id(storage)) is storage:
                return
            self.known[id(storage)] = storage
            self.live += storage.nbytes()
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self.forget, storage.nbytes())

        def forget(self, size: int) -> None:
            self.live -= size

    count = Count()
    with count:
        yield count


CONTESTANTS: dict[str, Callable[[Options], Prepare]] = {
    "none": plain,
    "every layer": every_layer,
    "every second layer": every_second,
    "selective": selective,
}


def add_parser(commands: Any) -> None:
    """The subcommand's options."""
    parser = commands.add_parser("recompute", help="memory and time of gradient checkpointing", description=__doc__)
    parser.add_argument("--size", choices=sorted(SIZES), default="small", help="size of the network (default: small)")
    parser.add_argument("--batch", type=int, default=8, help="rows (default: 8)")
    add_common(parser, rounds=5)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure and print."""
    options = SIZES[arguments.size] | {"batch": arguments.batch, "precision": "fp32", "threads": arguments.threads}
    contestants = race("recompute", list(CONTESTANTS), options, arguments.rounds, arguments.steps, progress)
    return publish(arguments, f"Recompute, {arguments.size}, batch {arguments.batch}", options, contestants, ["none"])
