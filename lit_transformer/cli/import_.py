"""``lit-transformer import``: a pre-trained model of the ecosystem becomes a run folder, which every verb takes."""

import sys
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_transformer.cli.options import OptionParser
from lit_transformer.errors import EXIT_DONE, EnvironmentFault, UserError

if TYPE_CHECKING:
    from lit_transformer.interop import Incoming

TASKS = {
    "LanguageModeling": "lit_transformer.tasks.language_modeling.LanguageModeling",
    "MaskedLanguageModeling": "lit_transformer.tasks.masked_language_modeling.MaskedLanguageModeling",
    "Translation": "lit_transformer.tasks.translation.Translation",
}
"""What a run folder can be made for, and the class that a checkpoint names."""

DATA: dict[str, dict[str, Any]] = {
    "LanguageModeling": {"class_path": "LanguageModelingData", "corpus": "StdlibCorpus", "batch_size": 8},
    "MaskedLanguageModeling": {"class_path": "MaskedLanguageModelingData", "corpus": "StdlibCorpus", "batch_size": 8},
    "Translation": {"class_path": "TranslationData", "corpus": "Numerals"},
}
"""Rows that are always at hand, to be replaced by the user's own."""

NOTE = """\
# {family}, imported from {source}
# data: stands in for your own; fit --config {recipe} --init_from {folder} starts from the imported weights
"""

PATTERNS = ("config.json", "generation_config.json", "*.safetensors", "model.safetensors.index.json",
            "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")  # fmt: skip


def parser() -> OptionParser:
    """The verb's options."""
    result = OptionParser(
        "import",
        "Make a run folder of a pre-trained model: recipe.yaml, tokenizer.json and checkpoints/last.ckpt, which every\n"
        "verb takes and fit --init_from fine-tunes.",
        "lit-transformer import --from models/Qwen3-0.6B --to runs/qwen3",
    )
    add = result.add_argument
    add("--from", required=True, dest="source", metavar="PLACE",
        help="a folder in the Hugging Face layout (or one that export wrote), or a name on the hub")  # fmt: skip
    add("--to", required=True, dest="target", metavar="FOLDER", help="the run folder to make")
    add("--revision", metavar="NAME", help="commit, tag or branch on the hub")
    add("--dtype", default="float32", choices=["float32", "bfloat16", "float16"],
        help="type of the weights that are kept (default: %(default)s)")  # fmt: skip
    add("--verify", action="store_true", help="compare with what transformers computes (needs the extra 'hf')")
    add("--allow_pickle", action="store_true",
        help="open pytorch_model.bin where there is no safetensors file; only tensors are built of it")  # fmt: skip
    return result


def run(argv: list[str]) -> int:
    """Runs the verb."""
    options = parser().parse_args(argv)
    target = Path(options.target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"--to {options.target}: exists already; name a new folder")
    folder = folder_of(options.source, options.revision, options.allow_pickle)
    checkpoint = import_model(folder, target, options.dtype, options.allow_pickle, options.source)
    if options.verify:
        from lit_transformer.checkpoints.loading import load_network
        from lit_transformer.interop.verifying import compare

        say(compare(folder, load_network(checkpoint).network).line(str(folder)))
    say(f"{checkpoint}: ready; try lit-transformer checkpoint inspect {options.target}")
    return EXIT_DONE


def say(message: str) -> None:
    """Tells the user how it goes."""
    print(message, file=sys.stderr)


def folder_of(source: str, revision: str | None = None, allow_pickle: bool = False) -> Path:
    """The folder that a place means: itself, or what is downloaded of a name on the hub.

    Raises:
        UserError: There is neither.
        EnvironmentFault: The hub cannot be reached.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        if revision is not None:
            raise UserError(f"--revision {revision}: is for names on the hub, and {source} is a folder")
        return path
    named = source.count("/") <= 1 and not source.startswith((".", "/", "~")) and not path.exists()
    if not named or "://" in source or not source.replace("/", "").replace("-", "").replace(".", "").strip("_"):
        raise UserError(f"--from {source}: is no folder and no name on the hub (owner/name)")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError
    except ImportError:
        raise UserError(f"--from {source}: is no folder; names on the hub need the extra 'hf'") from None
    patterns = [*PATTERNS, *(("pytorch_model*.bin", "pytorch_model.bin.index.json") if allow_pickle else ())]
    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=patterns))
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise UserError(f"--from {source}: is no folder, and no such name is on the hub: {_first(error)}") from None
    except (HfHubHTTPError, OSError) as error:
        raise EnvironmentFault(
            f"--from {source}: is no folder, and the hub cannot be reached: {_first(error)}"
        ) from None


def _first(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


def import_model(
    folder: str | Path, target: str | Path, dtype: str = "float32", allow_pickle: bool = False, source: str = ""
) -> Path:
    """Makes a run folder of a pre-trained model.

    Args:
        folder: The model, in the Hugging Face layout.
        target: The run folder.
        dtype: Type of the weights that are kept.
        allow_pickle: Whether ``pytorch_model.bin`` may be opened.
        source: What the recipe calls the model's origin; left out: the folder.

    Returns:
        The checkpoint.

    Raises:
        UserError: A model that is not supported, or a damaged one.
    """
    from lit_transformer.checkpoints.writing import write, write_with
    from lit_transformer.data.tokenizer import Tokenizer
    from lit_transformer.interop import read_folder
    from lit_transformer.interop.section import network_of

    target = Path(target)
    incoming = read_folder(folder, dtype, allow_pickle)
    for note in incoming.notes:
        say(note)
    vocabulary, tokenizer = incoming.vocabulary, None
    if incoming.tokens.text is not None:
        roles = incoming.tokens.roles
        tokenizer = Tokenizer.from_json(incoming.tokens.text, roles, name=f"{folder}/tokenizer.json")
        vocabulary = tokenizer.vocabulary()
    else:
        say(f"{folder}: holds no tokenizer.json; verbs that read text will refuse the model (make one with "
            "AutoTokenizer.from_pretrained(...).save_pretrained(...), which needs transformers)")  # fmt: skip
    task = incoming.task if incoming.task in TASKS else "LanguageModeling"
    section = network_of(incoming.section, str(folder))
    payload: dict[str, Any] = {
        "state_dict": {f"network.{name}": value for name, value in incoming.weights.items()},
        "hyper_parameters": {"class_path": TASKS[task], "init_args": {"network": section}},
        "vocabulary": asdict(vocabulary),
        "global_step": 0,
        "epoch": 0,
        "pytorch-lightning_version": _lightning(),
    }
    texts = {"recipe.yaml": recipe_text(incoming, task, target, source or str(folder))}
    if tokenizer is not None:
        payload |= {"tokenizer": tokenizer.to_json(), "tokenizer_sha256": tokenizer.fingerprint}
        texts["tokenizer.json"] = payload["tokenizer"]
    checkpoint = target / "checkpoints" / "last.ckpt"
    write(checkpoint, payload, step=0)
    for name, text in texts.items():
        write_with(target / name, lambda part, text=text: part.write_text(text, encoding="utf-8") and None)  # type: ignore[misc]
    return checkpoint


def _lightning() -> str:
    try:
        return version("lightning")
    except PackageNotFoundError:
        return "2.6.6"


def recipe_text(incoming: "Incoming", task: str, target: Path, source: str) -> str:
    """A recipe that fine-tunes the model, on data that are always at hand."""
    import yaml

    longest = incoming.section.get("dims", {}).get("max_len") or 256
    data = dict(DATA[task])
    data["tokenizer"] = {"class_path": "TokenizerFile", "path": str((target / "tokenizer.json").absolute())}
    data["max_len" if task == "Translation" else "block_size"] = min(256, longest)
    recipe = {
        "seed_everything": 1,
        "model": {
            "class_path": task,
            "network": incoming.section,
            "optimizer": {"class_path": "AdamW", "lr": 2.0e-5, "weight_decay": 0.01},
            "schedule": {"class_path": "Cosine", "warmup": 10},
        },
        "data": data,
        "trainer": {"max_steps": 200, "validate_every": 100, "gradient_clip_val": 1.0},
    }
    note = NOTE.format(family=incoming.family, source=source, recipe=target / "recipe.yaml", folder=target)
    return note + yaml.safe_dump(_plain(recipe), sort_keys=False, allow_unicode=True, width=120)


def _plain(value: Any) -> Any:
    """As one would write it: a class without arguments by its name, nothing by an anchor."""
    if isinstance(value, dict):
        if value.keys() == {"class_path"}:
            return value["class_path"]
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value
