"""The closed list of what a recipe may name.

A recipe names classes, and naming a class imports its module, which runs code. So nothing can be named but the parts of
this package, a short list of library classes that run no code of the recipe's choice, and the packages that the user
allows on the command line. The list is checked here before anything is imported, and handed to jsonargparse, which
checks again, both the name that was given and the module that the class is defined in.
"""

import importlib
import os
import sys
from collections.abc import Iterable

from lit_transformer.errors import UserError
from lit_transformer.recipe.errors import quote

ROOMS = ("blocks", "networks", "data", "training", "tasks", "dims", "vocabulary")
"""The parts of the package that recipes are made of; the other rooms are tools, which no recipe names."""

LIBRARY: dict[str, dict[str, tuple[str, ...]]] = {
    # package: {module that defines: classes that the package also exports}
    "torch.optim": {
        "adadelta": ("Adadelta",),
        "_adafactor": ("Adafactor",),
        "adagrad": ("Adagrad",),
        "adam": ("Adam",),
        "adamax": ("Adamax",),
        "adamw": ("AdamW",),
        "asgd": ("ASGD",),
        "_muon": ("Muon",),
        "nadam": ("NAdam",),
        "radam": ("RAdam",),
        "rmsprop": ("RMSprop",),
        "rprop": ("Rprop",),
        "sgd": ("SGD",),
    },
    "schedulefree": {
        "adamw_schedulefree": ("AdamWScheduleFree",),
        "radam_schedulefree": ("RAdamScheduleFree",),
        "sgd_schedulefree": ("SGDScheduleFree",),
    },
    "lightning.pytorch.callbacks": {
        # not LambdaCallback: its arguments are functions
        "device_stats_monitor": ("DeviceStatsMonitor",),
        "early_stopping": ("EarlyStopping",),
        "gradient_accumulation_scheduler": ("GradientAccumulationScheduler",),
        "lr_finder": ("LearningRateFinder",),
        "lr_monitor": ("LearningRateMonitor",),
        "model_checkpoint": ("ModelCheckpoint",),
        "model_summary": ("ModelSummary",),
        "rich_model_summary": ("RichModelSummary",),
        "timer": ("Timer",),
        "weight_averaging": ("EMAWeightAveraging", "WeightAveraging"),
        "progress.rich_progress": ("RichProgressBar",),
        "progress.tqdm_progress": ("TQDMProgressBar",),
    },
    "lightning.pytorch.loggers": {
        "csv_logs": ("CSVLogger",),
        "mlflow": ("MLFlowLogger",),
        "tensorboard": ("TensorBoardLogger",),
        "wandb": ("WandbLogger",),
    },
    "lightning.pytorch.profilers": {
        "advanced": ("AdvancedProfiler",),
        "base": ("PassThroughProfiler",),
        "pytorch": ("PyTorchProfiler",),
        "simple": ("SimpleProfiler",),
    },
    "lightning.pytorch.strategies": {
        "ddp": ("DDPStrategy",),
        "deepspeed": ("DeepSpeedStrategy",),
        "fsdp": ("FSDPStrategy",),
        "model_parallel": ("ModelParallelStrategy",),
        "single_device": ("SingleDeviceStrategy",),
    },
    "lightning.pytorch.accelerators": {
        "cpu": ("CPUAccelerator",),
        "cuda": ("CUDAAccelerator",),
        "mps": ("MPSAccelerator",),
    },
    "lightning.pytorch.plugins.precision": {
        "amp": ("MixedPrecision",),
        "double": ("DoublePrecision",),
        "fsdp": ("FSDPPrecision",),
        "half": ("HalfPrecision",),
        "precision": ("Precision",),
    },
    "lightning.fabric.plugins.environments": {
        "lightning": ("LightningEnvironment",),
        "slurm": ("SLURMEnvironment",),
        "torchelastic": ("TorchElasticEnvironment",),
    },
}


def library_paths() -> set[str]:
    """Every library class on the list, under the name of its package and under that of its module."""
    return {
        path
        for package, modules in LIBRARY.items()
        for module, names in modules.items()
        for name in names
        for path in (f"{package}.{name}", f"{package}.{module}.{name}")
    }


class ImportList:
    """What may be named, as a value: the closed list and the packages that a user allows beside it.

    Args:
        packages: What ``--allow`` was given.

    Raises:
        UserError: A package that is no package name, or one that would open everything.
    """

    def __init__(self, packages: Iterable[str] = ()) -> None:
        self.packages = tuple(dict.fromkeys(packages))
        for package in self.packages:
            top = package.split(".")[0]
            if not all(part.isidentifier() for part in package.split(".")):
                raise UserError(f"--allow {quote(package)}: expected the dotted name of a package of yours")
            if top in sys.stdlib_module_names or top in ("jsonargparse", "torch", "lightning", "lit_transformer"):
                raise UserError(f"--allow {package}: only packages of your own, {top} would let a recipe run anything")
        self._exact = library_paths()
        self._prefixes = tuple(f"lit_transformer.{room}." for room in ROOMS) + tuple(f"{p}." for p in self.packages)

    def allows(self, path: str) -> bool:
        """Whether the dotted path of a class may be named; imports nothing."""
        if not all(part.isidentifier() for part in path.split(".")):
            return False
        return path in self._exact or path.startswith(self._prefixes)

    def enforce(self) -> "ImportList":
        """Makes this the list of the process: jsonargparse's own is closed, the allowed packages are imported.

        Raises:
            UserError: An allowed package that cannot be imported.
        """
        # Imported here: ``lit-transformer recipes list`` answers without it.
        from jsonargparse import set_parsing_settings

        global _current
        dropped = [p for p in _current.packages if p not in self.packages] if _current else []
        set_parsing_settings(
            # Paths into user packages that an earlier list of this process allowed are denied again.
            import_path_denylist=["*", *dropped],
            import_path_allowlist=[prefix.rstrip(".") for prefix in self._prefixes] + sorted(self._exact),
            # A value of a recipe is never a place to read more from.
            config_read_mode_urls_enabled=False,
            config_read_mode_fsspec_enabled=False,
            instantiate_subclass_spec_in_any=False,
            validate_subclass_spec_in_any=True,
        )
        _current = self
        for package in self.packages:
            if os.getcwd() not in sys.path:  # a package beside the recipe; last, so that it hides nothing
                sys.path.append(os.getcwd())
            try:
                importlib.import_module(package)
            except ImportError as error:
                raise UserError(f"--allow {package}: cannot be imported: {error}") from error
        return self


_current: ImportList | None = None


def current_list() -> ImportList:
    """The list of this process; the closed one is put in force where none is."""
    return _current if _current is not None else ImportList().enforce()
