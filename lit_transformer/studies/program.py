"""What a study needs of the command line: the verbs, as functions. The room above hands them in."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from lit_transformer.recipe.tree import Mapping
from lit_transformer.studies.parts import Probe


@dataclass(frozen=True)
class Facts:
    """What is known of a recipe before it is trained.

    Args:
        parameters: Number of parameters of its network.
        tokens: Tokens that it is trained on, padding included.
        flops: FLOPs of one of these tokens, forward and backward, on average: of a pair an encoder reads the source
            alone and a decoder the target, and a decoder without one reads both.
        targets: What a loss is taken of, of batches of rows of unlike length; 0: as many as there are tokens.
    """

    parameters: int
    tokens: int
    flops: float
    targets: int = 0

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


class Program(Protocol):
    """Runs verbs in this process."""

    def begin(self, threads: int) -> None:
        """Sets this process up for computing."""

    def inspect(self, recipe: Mapping) -> Facts:
        """Checks a recipe against everything it names, prepares its data and builds its network without memory.

        Raises:
            UserError: What is wrong.
        """

    def check(self, recipe: Mapping) -> None:
        """Checks a recipe against everything it names.

        Raises:
            UserError: What is wrong.
        """

    def fit(self, recipe: Path, folder: Path, start: Path | None) -> None:
        """Trains a recipe, or goes on with the run in the folder.

        Args:
            recipe: The file.
            folder: The run folder.
            start: Checkpoint whose weights a new run starts from.

        Raises:
            LitTransformerError: What stopped it.
        """

    def evaluate(self, verb: str, recipe: Path, checkpoint: Path) -> dict[str, float]:
        """The metrics of a checkpoint on a split."""

    def probe(self, probe: Probe, recipe: Path, checkpoint: Path) -> dict[str, float]:
        """What a probe measures of a checkpoint."""

    def versions(self) -> dict[str, str]:
        """What computed: packages, Python, the device."""
