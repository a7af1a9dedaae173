"""fit, validate, test and predict: LightningCLI around a recipe that was checked line by line."""

import copy
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from jsonargparse import set_parsing_settings
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from lit_transformer.checkpoints.finding import find_newest, resolve
from lit_transformer.checkpoints.manifest import is_folder_of_parts
from lit_transformer.cli import main as program
from lit_transformer.cli.arguments import Arguments
from lit_transformer.cli.blame import located
from lit_transformer.cli.defaults import (
    EVALUATION_CALLBACKS,
    TRAINING_CALLBACKS,
    loggers,
    with_checkpoint_io,
    with_defaults,
)
from lit_transformer.cli.evaluation import checkpoint_to_evaluate, evaluate
from lit_transformer.cli.plain import differences, flat, specs, to_plain, to_yaml
from lit_transformer.cli.rehearsal import rehearse
from lit_transformer.cli.resolution import LOGGER_FOLDER_ARGUMENTS, Resolution, trainer_parameters
from lit_transformer.cli.run_folder import ROOT, RunFolder, RunRecord, announce, run_folder_of
from lit_transformer.data.classification import Classes
from lit_transformer.errors import EXIT_DONE, UserError
from lit_transformer.training.trainer import Trainer
from lit_transformer.vocabulary import Vocabulary

# A dataclass is parsed as a group of options, whose required ones a link does not fill in; as a class it is one value.
set_parsing_settings(subclasses_enabled=[Vocabulary, Classes])


class TrainingCLI(LightningCLI):
    """LightningCLI with our Trainer, links and defaults; it builds, and ``run`` decides what to do with it.

    Args:
        resolution: The checked recipe.
        verb: fit, validate, test or predict; None only parses.
        folder: The run folder of ``fit``.
    """

    def __init__(self, resolution: Resolution, verb: str | None = None, folder: RunFolder | None = None) -> None:
        self.resolution = resolution
        self.verb = verb
        self.folder = folder
        super().__init__(
            LightningModule,
            LightningDataModule,
            save_config_callback=None,
            trainer_class=Trainer,
            seed_everything_default=True,
            parser_kwargs={"exit_on_error": False},
            subclass_mode_model=True,
            subclass_mode_data=True,
            args=_with_logger_folders(resolution.config, str(folder.path) if folder else ROOT),
            run=False,
            auto_configure_optimizers=False,
            # The task stores its own section of the recipe as plain data.
            load_from_checkpoint_support=False,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """What a task takes from elsewhere."""
        filled_in = self.resolution.filled_in()
        if "vocabulary" in filled_in:
            parser.link_arguments("data.vocabulary", "model.init_args.vocabulary", apply_on="instantiate")
        if "classes" in filled_in:
            data = self.resolution.resolver.parts.get("data")
            if not hasattr(data, "classes"):
                named = getattr(data, "__name__", "the data")
                raise UserError(f"data: {named} has no classes, which the model needs; use ClassificationData")
            parser.link_arguments("data.classes", "model.init_args.classes", apply_on="instantiate")
        if "max_steps" in filled_in:
            parser.link_arguments("trainer.max_steps", "model.init_args.max_steps")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses the checked recipe; nothing is read from the command line here."""
        self.config = parser.parse_object(args)

    def _set_seed(self) -> None:
        if self.verb is not None:
            super()._set_seed()

    def before_instantiate_classes(self) -> None:
        """Keeps the resolved recipe as it is before anything is filled in for this run."""
        self.recipe = self._resolved()

    def _resolved(self) -> dict[str, Any]:
        data: dict[str, Any] = to_plain(self.config)
        for name in self.resolution.filled_in():
            data["model"]["init_args"].pop(name, None)
        known = trainer_parameters()
        data["trainer"] = {key: value for key, value in data["trainer"].items() if key in known}
        given = self.resolution.config.get("trainer", {}).get("logger")
        for spec, original in zip(specs(data["trainer"].get("logger")), specs(given), strict=False):
            for name in LOGGER_FOLDER_ARGUMENTS.get(spec["class_path"].rpartition(".")[2], {}):
                if name not in original.get("init_args", {}):
                    spec.get("init_args", {}).pop(name, None)
        return {key: data[key] for key in ("seed_everything", "model", "data", "trainer") if key in data}

    def instantiate_classes(self) -> None:
        """Builds data, task and Trainer; only parses without a verb."""
        if self.verb is None:
            return
        self.rehearse()
        super().instantiate_classes()
        if hasattr(self.model, "recipe"):
            self.model.recipe = self.recipe["model"]

    def rehearse(self) -> None:
        """Tries what needs no data, so that a mistake is said before the data is prepared."""
        rehearse(self.resolution)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The Trainer with what every run gets."""
        config = {**self._get(self.config_init, "trainer", default={}), **kwargs}
        config["plugins"] = with_checkpoint_io(config.get("plugins"))
        if config.get("enable_model_summary") is None:
            config["enable_model_summary"] = False
        if self.folder is not None:
            config["callbacks"] = [
                *with_defaults(config.get("callbacks"), TRAINING_CALLBACKS, config),
                RunRecord(self.folder, to_yaml(self.recipe), dict(flat(self.recipe))),
            ]
            config["logger"] = loggers(config.get("logger"), str(self.folder.path))
            config["default_root_dir"] = str(self.folder.path)
        else:
            config["callbacks"] = with_defaults(None, EVALUATION_CALLBACKS, config)
            config["logger"] = False
            config["enable_checkpointing"] = False
        return Trainer(**config)


def run(arguments: Arguments, argv: Sequence[str]) -> int:
    """Runs a training verb."""
    quiet()
    if arguments.verb == "fit" and not arguments.configs:
        raise UserError("fit: --config is missing; try --config quickstart, or lit-transformer recipes list")
    checkpoint = None if arguments.verb == "fit" else checkpoint_to_evaluate(arguments)
    resolution = Resolution(arguments.recipe(), arguments.allow)
    with locating(resolution):
        if arguments.print_config:
            print(to_yaml(TrainingCLI(resolution).recipe), end="")
            return EXIT_DONE
        if checkpoint is None:
            return _fit(arguments, resolution, list(argv))
        evaluate(arguments, TrainingCLI(resolution, arguments.verb), checkpoint)
        return EXIT_DONE


def quiet() -> None:
    """Keeps Lightning's chatter off the terminal; the run's log has it, and warnings are shown."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        for handler in logging.getLogger(name).handlers:
            if type(handler) is logging.StreamHandler:
                handler.setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*callbacks used to create the checkpoint need to be provided.*")
    # Who wants a job of the cluster says `submit`; whoever starts `fit` there by hand means this machine.
    warnings.filterwarnings("ignore", message="The `srun` command is available.*")
    # A machine of a cluster, where this run is not a job.
    warnings.filterwarnings("ignore", message=".*`srun` command is available on your system but is not used.*")
    # It looks at the number of cores; our loaders read prepared tokens, which one process does at full speed.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")


def _fit(arguments: Arguments, resolution: Resolution, argv: list[str]) -> int:
    start, story, folder = None, "", None
    if arguments.resume:
        start, story, folder = _resumed(arguments)
    origin = _origin(arguments.init_from) if start is None else None
    folder = folder or RunFolder.for_recipe(arguments.name, arguments.output)
    program.run_folder = folder.path
    cli = TrainingCLI(resolution, "fit", folder)
    with folder.opened(argv, arguments.allow):
        if story:
            announce(story)
        if start is not None:
            for line in differences(folder.path / "recipe.yaml", cli.recipe):
                announce(line)
        announce(f"run folder: {folder.path}")
        if origin is not None:
            tokenizer = getattr(cli.datamodule, "tokenizer", None)
            cli.model.on_built.append(partial(_load_weights, path=origin, tokenizer=tokenizer))
        cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=str(start) if start else None)
    return EXIT_DONE


def _resumed(arguments: Arguments) -> tuple[Path | None, str, RunFolder | None]:
    """The checkpoint to go on from, how it was chosen, and its run folder.

    With ``--init_from`` a job that is started again and again says one thing each time: what it has saved is gone on
    with, and its first start is from those weights.
    """
    place = Path(arguments.resume if isinstance(arguments.resume, str) else arguments.output or "")
    if not str(arguments.resume or "") or place == Path(""):
        place = Path(ROOT) / arguments.name
    if "://" in str(arguments.resume):
        raise UserError(f"--resume={arguments.resume}: checkpoints are read from files only")
    if place.is_file() or is_folder_of_parts(place) or (isinstance(arguments.resume, str) and not place.exists()):
        if arguments.init_from:
            raise UserError(f"fit: --resume={arguments.resume} and --init_from exclude each other: a run that goes on "
                            "from a checkpoint has its weights; take one out")  # fmt: skip
        start = resolve(place)
        return start, f"{start}: the checkpoint named", _folder(start)
    found = find_newest(place) if place.is_dir() else None
    if found is None:
        begins = f"begins from {arguments.init_from}" if arguments.init_from else "begins"
        story = f"{place}: no checkpoint to resume from; a new run {begins}"
        # A run that was killed before its first checkpoint has left its log: the folder is its own, to begin in again.
        begun = arguments.output is not None and place == Path(arguments.output) and (place / "run.log").is_file()
        return None, story, RunFolder(place) if begun else None
    return found.path, str(found), _folder(found.path)


def _folder(checkpoint: Path) -> RunFolder | None:
    folder = run_folder_of(checkpoint)
    return RunFolder(Path(os.path.relpath(folder))) if folder else None


def _origin(init_from: str | None) -> Path | None:
    """The checkpoint whose weights a run starts from: a name that leads nowhere is said before anything is prepared."""
    if not init_from:
        return None
    if "://" in init_from:
        raise UserError(f"--init_from {init_from}: checkpoints are read from files only; download it first")
    path = resolve(init_from)
    if not path.exists():
        raise UserError(f"--init_from {init_from}: no such file")
    return path


def _load_weights(network: Any, path: Path, tokenizer: Any) -> None:
    """Weights only, for a run of its own, into a network that a strategy may have spread already."""
    from lit_transformer.checkpoints.reading import read
    from lit_transformer.checkpoints.starting import start_from

    for line in start_from(network, path, read(path), tokenizer).lines():
        announce(line)


@contextmanager
def locating(resolution: Resolution) -> Iterator[None]:
    """Errors of parts name the recipe's line."""
    try:
        yield
    except Exception as error:
        better = located(error, resolution)
        if better is error:
            raise
        raise better from error


def resolved_yaml(names: Sequence[str], allow: Sequence[str] = ()) -> str:
    """The resolved recipe: overlays merged, every default filled in.

    Raises:
        RecipeError: The first mistake, with the others in ``others``.
    """
    resolution = Resolution(Arguments("fit", configs=list(names)).recipe(), allow)
    with locating(resolution):
        return to_yaml(TrainingCLI(resolution).recipe)


def _with_logger_folders(config: dict[str, Any], folder: str) -> dict[str, Any]:
    """The configuration with the run folder where a logger wants to know it."""
    config = copy.deepcopy(config)
    for spec in specs(config.get("trainer", {}).get("logger")):
        for name, value in LOGGER_FOLDER_ARGUMENTS.get(spec["class_path"].rpartition(".")[2], {}).items():
            spec.setdefault("init_args", {}).setdefault(name, value.replace("{folder}", folder))
    return config
