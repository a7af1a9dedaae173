"""``lit-transformer export``: a checkpoint as a folder that others' tools load."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_transformer.cli.import_ import say
from lit_transformer.cli.options import OptionParser
from lit_transformer.errors import EXIT_DONE, UserError

if TYPE_CHECKING:
    from lit_transformer.checkpoints.loading import Weights


def parser() -> OptionParser:
    """The verb's options."""
    result = OptionParser(
        "export",
        "Write a checkpoint as a folder that AutoModel and AutoTokenizer of transformers load as it is; or, where\n"
        "that layout has no word for the network, as one that this program alone loads (--layout native, then import).",
        "lit-transformer export --checkpoint runs/qwen3 --to models/mine --verify",
    )
    add = result.add_argument
    add("--checkpoint", required=True, metavar="PATH", help="a checkpoint file, or a run folder: its best checkpoint")
    add("--to", required=True, dest="target", metavar="FOLDER", help="the folder to make")
    add("--layout", default="huggingface", choices=["huggingface", "native", "peft"],
        help="native: loaded by this program alone; peft: the adapters of a LoRA run alone (default: %(default)s)",
    )  # fmt: skip
    add("--family", metavar="NAME", help="the family to write; left out: the first that says the network")
    add("--weights", default="auto", choices=["auto", "raw", "ema"],
        help="auto: the averaged weights where there are some (default: %(default)s)")  # fmt: skip
    add("--dtype", choices=["float32", "bfloat16", "float16"], help="type of the weights (default: as they are)")
    add("--verify", action="store_true", help="load the folder and compare the logits")
    add("--allow", action="append", default=[], metavar="PACKAGE",
        help="let the checkpoint name classes of this package")  # fmt: skip
    return result


def run(argv: list[str]) -> int:
    """Runs the verb."""
    options = parser().parse_args(argv)
    from lit_transformer.recipe import ImportList

    ImportList(options.allow).enforce()
    written = export_model(
        options.checkpoint, options.target, options.layout, options.family, options.weights, options.dtype
    )
    say(f"{options.target}: written as {written}")
    if options.verify:
        say(verify(options.checkpoint, options.target, options.layout, options.weights))
    return EXIT_DONE


def export_model(
    checkpoint: str | Path,
    target: str | Path,
    layout: str = "huggingface",
    family: str | None = None,
    weights: "Weights" = "auto",
    dtype: str | None = None,
) -> str:
    """Writes a checkpoint's network and tokenizer to a new folder.

    Args:
        checkpoint: A checkpoint file or a run folder.
        target: The folder to make.
        layout: "huggingface", "native", or "peft": the adapters alone.
        family: The family to write; left out: the first that says the network.
        weights: ``ema`` the average, ``raw`` the trained ones, ``auto`` the average where there is one.
        dtype: Type of the weights; left out: as they are.

    Returns:
        What was written: the family's name, or "native".

    Raises:
        UserError: The layout cannot say the network: the line names the option that stands in the way.
    """
    from lit_transformer.checkpoints.finding import resolve
    from lit_transformer.checkpoints.loading import load_network, network_weights
    from lit_transformer.checkpoints.reading import read
    from lit_transformer.interop import write_folder

    path = resolve(checkpoint)
    loaded = load_network(path, weights)
    section: Any = loaded.arguments.get("network")
    if not isinstance(section, dict | str):
        raise UserError(f"{path}: does not say which network it holds")
    section = section if isinstance(section, dict) else {"class_path": section}
    if layout == "peft":
        from lit_transformer.interop.peft import write_adapters

        return write_adapters(target, section, loaded.vocabulary, read(path)["state_dict"], family).model_type
    values = network_weights(path, read(path), weights)
    found = write_folder(
        target, section, loaded.vocabulary, values, loaded.tokenizer, layout, family, dtype, loaded.task or ""
    )
    return "native" if found is None else found.model_type


def verify(checkpoint: str | Path, target: str | Path, layout: str = "huggingface", weights: "Weights" = "auto") -> str:
    """Compares what the folder computes with the checkpoint, and says how far they are apart.

    Raises:
        UserError: They differ, or ``transformers`` is not there.
    """
    from lit_transformer.checkpoints.finding import resolve
    from lit_transformer.checkpoints.loading import load_network
    from lit_transformer.interop.verifying import compare, compare_native

    loaded = load_network(resolve(checkpoint), weights)
    if layout == "peft":
        raise UserError("--verify: compares whole models; leave it out with --layout peft")
    if layout == "native":
        return compare_native(target, loaded.network).line(str(target))
    return compare(target, loaded.network, loaded.tokenizer).line(str(target))
