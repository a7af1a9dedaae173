"""Finding the checkpoint to go on from: the newest that verifies."""

from dataclasses import dataclass
from pathlib import Path

from lit_transformer.checkpoints.manifest import is_folder_of_parts
from lit_transformer.checkpoints.reading import read_footer, verify
from lit_transformer.errors import LitTransformerError, UserError

_PATTERNS = ("*.ckpt", "checkpoints/*.ckpt", "*/checkpoints/*.ckpt", "*/*/checkpoints/*.ckpt")


@dataclass(frozen=True)
class Found:
    """A checkpoint that verified, and the story of its choice.

    Args:
        path: The file, or the folder of parts.
        step: Optimizer steps done.
        skipped: One line for each newer file that did not verify: its path and what is wrong with it.
    """

    path: Path
    step: int
    skipped: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"skipped {line}" for line in self.skipped]
        return "\n".join([*lines, f"{self.path}: step {self.step}, the newest checkpoint that verifies"])


def candidates(folder: str | Path) -> list[Path]:
    """Checkpoints of a run folder, or of all runs in a folder of runs; the most recent run first."""
    folder = Path(folder)
    files = {file for pattern in _PATTERNS for file in folder.glob(pattern) if _may_be_one(file)}
    return sorted(files, key=lambda file: (*_run(file), file.name), reverse=True)


def _may_be_one(file: Path) -> bool:
    # a link to a folder that was lost, or lost what says that it is a checkpoint, is to be named
    return file.is_file() or file.is_symlink() or is_folder_of_parts(file)


def _run(file: Path) -> tuple[str, str]:
    """What orders runs: the name of the run's folder, which is a time, then where it is."""
    folder = file.absolute().parent
    folder = folder.parent if folder.name == "checkpoints" else folder
    return folder.name, str(folder)


def find_newest(folder: str | Path) -> Found | None:
    """The newest checkpoint under ``folder`` that verifies, every byte read; ``None`` where there is no file at all.

    Newest is: of the most recent run (their folders are named by time), the one with most optimizer steps. A file that
    does not verify is skipped, by name.

    Args:
        folder: A run folder, its ``checkpoints`` folder, or the folder of a recipe's runs.

    Raises:
        UserError: There are checkpoints and none verifies.
    """
    skipped: list[str] = []
    steps: dict[Path, int] = {}
    for file in candidates(folder):
        try:
            steps[file] = read_footer(file).step
        except LitTransformerError as error:
            skipped.append(str(error))
    for file in sorted(steps, key=lambda file: (_run(file), steps[file], file.name), reverse=True):
        try:
            return Found(file, verify(file).step, tuple(skipped))
        except LitTransformerError as error:
            skipped.append(str(error))
    if skipped:
        raise UserError(f"{folder}: none of its checkpoints verifies: " + " | ".join(skipped))
    return None


def resolve(path: str | Path, prefer: str = "best.ckpt") -> Path:
    """The checkpoint meant by ``path``: itself, or in a run folder ``prefer`` where it verifies, or the newest.

    Raises:
        UserError: There is none.
    """
    path = Path(path)
    if not path.is_dir() or is_folder_of_parts(path):
        return path
    for file in (path / prefer, path / "checkpoints" / prefer):
        if _may_be_one(file):
            try:
                verify(file)
            except LitTransformerError:
                break
            return file
    found = find_newest(path)
    if found is None:
        raise UserError(f"{path}: holds no checkpoint; give a checkpoint file or a run folder (runs/<recipe>/<time>)")
    return found.path
