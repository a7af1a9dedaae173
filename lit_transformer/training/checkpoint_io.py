"""Lightning's door to the file system, replaced by ours."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO

from lit_transformer.checkpoints import folders, reading, writing
from lit_transformer.errors import UserError


class LitCheckpointIO(CheckpointIO):
    """Saves whole or not at all, loads only what verifies, and never runs code from a file.

    Goes into ``Trainer(plugins=[LitCheckpointIO()])``. Lightning's own stages in the temporary folder, which on another
    file system is no protection, holds a second copy in memory, and notices no flipped bit.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Writes ``checkpoint``; the path holds it only once this returns."""
        if storage_options is not None:
            raise UserError("storage_options are not supported: checkpoints are local files")
        writing.write(path, checkpoint, step=int(checkpoint["global_step"]))

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[..., Any] | None = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Verifies and reads, on the CPU and always as plain data, whatever ``weights_only`` says."""
        return reading.read(path)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Removes a checkpoint."""
        folders.remove(Path(path))
