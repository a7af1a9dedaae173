"""From a recipe's tree to a configuration that the training verbs run; imports torch and Lightning."""

from collections.abc import Collection, Sequence
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule

from lit_transformer.recipe.allow import ImportList
from lit_transformer.recipe.building import TRAINING_ROOMS, import_rooms
from lit_transformer.recipe.errors import RecipeError
from lit_transformer.recipe.resolve import Resolver
from lit_transformer.recipe.signatures import parameters
from lit_transformer.recipe.tree import Mapping, Scalar
from lit_transformer.recipe.values import NOTHING
from lit_transformer.training.trainer import Trainer

LOGGER_FOLDER_ARGUMENTS: dict[str, dict[str, str]] = {
    "TensorBoardLogger": {"save_dir": "{folder}", "name": "", "version": ""},
    "CSVLogger": {"save_dir": "{folder}", "name": "", "version": ""},
    "WandbLogger": {"save_dir": "{folder}"},
    "MLFlowLogger": {"tracking_uri": "sqlite:///{folder}/mlflow.db"},  # MLflow refuses new runs in plain folders
}
"""Arguments of loggers that are filled in where a recipe leaves them out; ``{folder}`` stands for the run folder."""

FILLED_IN = ("vocabulary", "classes", "max_steps")
"""Arguments of a task that the command line fills in: from the data, and from the trainer."""


class Resolution:
    """A recipe checked against everything it names.

    Args:
        tree: The merged recipe.
        allow: Packages of ``--allow``.

    Raises:
        RecipeError: The first mistake, with the others in ``others``.
    """

    def __init__(self, tree: Mapping, allow: Sequence[str] = ()) -> None:
        self.tree = tree
        self.imports = ImportList(allow).enforce()
        import_rooms(TRAINING_ROOMS)
        self.resolver = _TaskResolver(self.imports)
        self.resolver.parts["trainer"] = Trainer
        self.config = self._resolve()
        self.resolver.check()

    def _resolve(self) -> dict[str, Any]:
        config: dict[str, Any] = {}
        slots: dict[str, Any] = {"model": LightningModule, "data": LightningDataModule}
        for key, slot in slots.items():
            if key not in self.tree.items:
                self.resolver.errors.append(
                    RecipeError(f"is missing, expected the name of a {slot.__name__}", self.tree.mark.file, 0, key)
                )
                continue
            config[key] = self.resolver.value(self.tree.items[key], slot, key, self.tree.marks[key])
            if isinstance(config[key], dict):
                config[key].setdefault("init_args", {})
        trainer = self.tree.items.get("trainer", Mapping(self.tree.mark))
        mark = self.tree.marks.get("trainer", self.tree.mark)
        if isinstance(trainer, Mapping):
            config["trainer"] = self.resolver.arguments(
                trainer, trainer_parameters(), "trainer", mark, hints=Trainer.RECIPE_HINTS
            )
            if isinstance(config["trainer"], dict) and isinstance(config["trainer"].get("callbacks"), dict):
                # One by itself: said as a list, so that what its constructor has to say is not "expected a list".
                config["trainer"]["callbacks"] = [config["trainer"]["callbacks"]]
        else:
            self.resolver.errors.append(mark.error("expected keys and values such as 'max_steps: 1000'", "trainer"))
        seed = self.tree.items.get("seed_everything")
        if seed is not None:
            config["seed_everything"] = self.resolver.value(
                seed, bool | int, "seed_everything", self.tree.marks["seed_everything"]
            )
            if isinstance(seed, Scalar) and isinstance(seed.value, int) and not 0 <= seed.value < 2**32:
                place = self.tree.marks["seed_everything"]
                self.resolver.errors.append(place.error(f"is {seed.value}, must be 0 to 2^32 - 1", "seed_everything"))
        return {key: value for key, value in config.items() if value is not NOTHING}

    def filled_in(self) -> list[str]:
        """Those of ``FILLED_IN`` that this recipe's task takes."""
        task = self.resolver.parts.get("model")
        return [name for name in FILLED_IN if task is not None and name in parameters(task)]


class _TaskResolver(Resolver):
    """Knows that a task's vocabulary and number of steps are not the recipe's to give."""

    def build_arguments(
        self, cls: type, skip: int, rest: Mapping, key: str, mark: Any, given: Any = ()
    ) -> dict[str, Any]:
        if key == "model":
            given = [name for name in FILLED_IN if name in parameters(cls)]
        return super().build_arguments(cls, skip, rest, key, mark, given)

    def supplied(self, cls: type) -> Collection[str]:
        """The folder of a logger is the run's."""
        return LOGGER_FOLDER_ARGUMENTS.get(cls.__name__, ())


def trainer_parameters() -> dict[str, Any]:
    """What ``trainer:`` takes: Lightning's arguments without those that the step clock replaces."""
    return {name: p for name, p in parameters(Trainer).items() if name not in Trainer.RECIPE_HINTS}
