"""``lit-transformer checkpoint``: look into checkpoint files, check that they are whole, average and convert them."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lit_transformer.checkpoints.finding import candidates
from lit_transformer.checkpoints.manifest import is_folder_of_parts
from lit_transformer.checkpoints.reading import read, read_footer, verify
from lit_transformer.cli.options import OptionParser
from lit_transformer.errors import EXIT_DONE, LitTransformerError, UserError

PLACE = "a checkpoint file, or a run folder: all of its checkpoints"
TRUST = "open DeepSpeed's files, which can run code: only if you wrote them"


def run(argv: list[str]) -> int:
    """Runs the verb."""
    parser = OptionParser(
        "checkpoint",
        "Inspect, verify, average and convert checkpoints.",
        "lit-transformer checkpoint verify runs/quickstart",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=_ActionParser)
    for name, do in (("inspect", inspect_files), ("verify", verify_files)):
        action = actions.add_parser(name, help=_ActionParser.SUMMARIES[name])
        action.add_argument("checkpoint", nargs="+", metavar="CHECKPOINT", help=PLACE)
        action.set_defaults(do=do)
    average = actions.add_parser("average", help=_ActionParser.SUMMARIES["average"])
    average.add_argument(
        "checkpoint", nargs="+", metavar="CHECKPOINT", help="checkpoint files, or a run folder with --last or --best"
    )
    number = average.add_mutually_exclusive_group()
    number.add_argument("--last", type=int, metavar="N", help="the last N that the run keeps (KeptCheckpoints)")
    number.add_argument("--best", type=int, metavar="N", help="the best N that the run keeps (KeptCheckpoints)")
    average.add_argument("--weights", choices=("auto", "raw", "ema"), default="raw", help="of each (default: raw)")
    average.add_argument("--output", required=True, metavar="FILE", help="the file to write")
    average.add_argument("--trust", action="store_true", help=TRUST)
    average.set_defaults(do=average_files)
    convert = actions.add_parser("convert", help=_ActionParser.SUMMARIES["convert"])
    convert.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help="a file (.ckpt, .safetensors), or a folder of parts: of torch.distributed.checkpoint, or DeepSpeed's",
    )
    convert.add_argument("--output", required=True, metavar="PATH", help="what to write: NAME.safetensors, NAME.ckpt, "
                         "or the name of a folder of parts")  # fmt: skip
    convert.add_argument("--weights", choices=("auto", "raw", "ema"), default="raw", help="which ones (default: raw)")
    convert.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), help="their type (default: as it is)")
    convert.add_argument("--trust", action="store_true", help=TRUST)
    convert.set_defaults(do=convert_file)
    options = parser.parse_args(argv)
    return int(options.do(options))


class _ActionParser(OptionParser):
    SUMMARIES = {
        "inspect": "Print what a checkpoint holds: step, clock, sizes, recipe of the network, vocabulary.",
        "average": "Write the mean of the weights of several checkpoints of one network.",
        "convert": "Write the weights of a checkpoint in another form, and say their SHA-256, which stays the same.",
        "verify": "Read every byte and compare with the stored SHA-256; one line a file.",
    }

    def __init__(self, prog: str, **kwargs: Any) -> None:
        name = prog.rpartition(" ")[2]
        example = f"lit-transformer checkpoint {name} runs/quickstart/20260101-120000"
        example += {"average": " --last 5 --output averaged.ckpt", "convert": "/checkpoints/best.ckpt --output "
                    "best.safetensors"}.get(name, "")  # fmt: skip
        super().__init__(f"checkpoint {name}", self.SUMMARIES[name], example, **kwargs)


def verify_files(options: argparse.Namespace) -> int:
    """Prints a line per file; the exit code is that of the worst."""
    code = EXIT_DONE
    for path in _files(options.checkpoint):
        try:
            footer = verify(path)
            print(f"{path}: good, step {footer.step}, {_size(footer.length)}, sha256 {footer.sha256[:16]}")
        except LitTransformerError as error:
            print(error)
            code = max(code, error.exit_code)
    return code


def inspect_files(options: argparse.Namespace) -> int:
    """Prints what is in each file."""
    for path in _files(options.checkpoint):
        content = read(path)
        print(f"{path}: {_size(read_footer(path).length)}")
        for name, value in describe(content):
            print(f"  {name:<18} {value}")
    return EXIT_DONE


def average_files(options: argparse.Namespace) -> int:
    """Writes the average and says of what."""
    from lit_transformer.checkpoints.averaging import average_checkpoints, checkpoints_of_run
    from lit_transformer.checkpoints.converting import is_folder_of_parts

    paths = [Path(place) for place in options.checkpoint]
    if options.last is not None or options.best is not None:
        if len(paths) != 1 or not paths[0].is_dir():
            raise UserError("checkpoint average: --last and --best choose among the checkpoints of one run folder")
        paths = checkpoints_of_run(paths[0], options.last, options.best)
    elif folders := [path for path in paths if path.is_dir() and not is_folder_of_parts(path)]:
        raise UserError(f"checkpoint average: {folders[0]} is a folder; say how many with --last or --best")
    target = average_checkpoints(paths, options.output, options.weights, options.trust)
    print(f"{target}: the mean of {len(paths)} checkpoints: {', '.join(path.name for path in paths)}")
    return EXIT_DONE


def convert_file(options: argparse.Namespace) -> int:
    """Writes the other form and says what it holds."""
    from lit_transformer.checkpoints.converting import convert

    done = convert(options.checkpoint, options.output, options.weights, options.dtype, options.trust)
    cast = f"; {done.cast}" if done.cast else ""
    print(f"{done.path}: {done.kind}, {done.tensors} tensors, weights sha256 {done.digest}{cast}")
    return EXIT_DONE


def describe(checkpoint: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Names and values of what is worth knowing of a checkpoint's content."""
    clock = checkpoint.get("run_state", {}).get("clock", {})
    yield "step", f"{checkpoint['global_step']:,}"
    for name in ("applied", "batches", "samples", "tokens"):
        if name in clock:
            yield {"applied": "updates applied"}.get(name, name), f"{clock[name]:,}"
    weights = {k: v for k, v in checkpoint["state_dict"].items() if hasattr(v, "numel")}
    unique = {v.untyped_storage().data_ptr(): v for v in weights.values()}
    kinds = sorted({str(v.dtype).removeprefix("torch.") for v in weights.values()})
    yield "parameters", f"{sum(v.numel() for v in unique.values()):,} in {len(weights)} tensors ({', '.join(kinds)})"
    average = checkpoint.get("ema")
    if "averaged" in checkpoint:
        yield "mean of steps", ", ".join(f"{step:,}" for step in checkpoint["averaged"]["steps"])
    yield "averaged weights", f"decay {average['decay']}, {average['updates']:,} updates" if average else "none"
    for name, state in checkpoint.get("callbacks", {}).items():
        if isinstance(state, dict) and state.get("best_step") is not None:
            yield "best", f"{state['best_score']:.6g} at step {state['best_step']:,} ({name.partition('{')[0]})"
    vocabulary = checkpoint.get("vocabulary", {})
    yield "vocabulary", ", ".join(f"{k} {v}" for k, v in vocabulary.items() if v is not None) or "none"
    yield "tokenizer", str(checkpoint.get("tokenizer_sha256", "none"))[:16]
    ranks = len(checkpoint.get("run_state", {}).get("generators", []))
    yield "written by", f"lightning {checkpoint.get('pytorch-lightning_version', '?')}, {ranks} process(es)"
    yield from _flat(checkpoint.get("hyper_parameters", {}))


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, each in value.items():
            plain = name in ("class_path", "init_args")
            yield from _flat(each, key if plain else f"{key}.{name}" if key else str(name))
    elif value is not None:
        yield key or "model", str(value)


def _files(places: list[str]) -> Iterator[Path]:
    for place in map(Path, places):
        if not place.is_dir() or is_folder_of_parts(place):
            yield place
            continue
        files = candidates(place)
        if not files:
            raise UserError(f"{place}: holds no checkpoint")
        yield from files


def _size(n: int) -> str:
    return f"{n / 1e9:.2f} GB" if n >= 1e9 else f"{n / 1e6:.2f} MB"
