"""The manifest of a checkpoint that is a folder of parts: its step, and the size and digest of every file in it."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lit_transformer.checkpoints.footer import Footer
from lit_transformer.errors import EnvironmentFault, UserError

MANIFEST, INDEX, STATE = "lit-transformer.json", ".metadata", "meta.pt"
FORMAT = 2


def is_folder_of_parts(path: Path) -> bool:
    """Whether a folder is a checkpoint, be it one whose index or manifest is lost."""
    return (path / INDEX).is_file() or (path / MANIFEST).is_file()


@dataclass(frozen=True)
class Manifest:
    """What a folder says of itself.

    Args:
        step: Number of optimizer steps done.
        files: Bytes and SHA-256 of each file, by its name.
    """

    step: int
    files: dict[str, tuple[int, str]]

    def to_bytes(self) -> bytes:
        """The manifest as it stands in the folder: a line, and the digest of that line."""
        text = json.dumps({"format": FORMAT, "step": self.step, "files": self.files}).encode()
        return text + b"\n" + hashlib.sha256(text).hexdigest().encode() + b"\n"

    @classmethod
    def read(cls, path: Path) -> "Manifest":
        """That of a folder, without looking at the parts.

        Raises:
            UserError: It is missing or damaged.
        """
        file = path / MANIFEST
        try:
            data = file.read_bytes()
        except FileNotFoundError:
            raise UserError(f"{path}: its manifest {MANIFEST} is missing; copy the whole folder") from None
        except OSError as error:
            raise EnvironmentFault(f"{file}: could not be read: {error.strerror or error}") from error
        text, _, digest = data.partition(b"\n")
        if digest != hashlib.sha256(text).hexdigest().encode() + b"\n":
            raise UserError(f"{file}: is damaged; use another checkpoint")
        try:
            content = json.loads(text)
            if content["format"] != FORMAT:
                raise UserError(f"{file}: has format {content['format']}, this version reads {FORMAT}")
            files = {str(name): (int(size), str(sha256)) for name, (size, sha256) in content["files"].items()}
            if any(Path(name).name != name for name in files) or not {INDEX, STATE} <= files.keys():
                raise ValueError("it does not list what a folder holds")
            return cls(int(content["step"]), files)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{file}: is no manifest of a checkpoint: {str(error)[:120]}") from error

    def check(self, path: Path, names: Iterable[str] | None = None) -> Footer:
        """Reads files of a folder and compares them with their digests; what a file's footer would say.

        Args:
            path: The folder.
            names: Of the files; left out: all.

        Raises:
            UserError: Naming the file that is missing or damaged.
        """
        folder = path.resolve()  # a run that goes on may have the link lead to another folder meanwhile
        for name in self.files if names is None else names:
            wanted = self.files[name]
            try:
                found = described(folder / name) if (folder / name).is_file() else None
            except OSError as error:
                raise EnvironmentFault(f"{path / name}: could not be read: {error.strerror or error}") from error
            if found is None:
                raise UserError(f"{path}: its part {name} is missing; copy the whole folder")
            if found[0] != wanted[0]:
                raise UserError(f"{path}: its part {name} is damaged: {found[0]} bytes long, {wanted[0]} were written; "
                                "use another checkpoint")  # fmt: skip
            if found[1] != wanted[1]:
                raise UserError(f"{path}: its part {name} is damaged: its content does not match its SHA-256; "
                                "use another checkpoint")  # fmt: skip
        return self.label

    @property
    def label(self) -> Footer:
        """What the footer of a file would say: the digest is that of the manifest, which holds those of the parts."""
        digest = hashlib.sha256(self.to_bytes()).hexdigest()
        return Footer(self.step, sum(size for size, _ in self.files.values()), digest)


def described(file: Path) -> tuple[int, str]:
    """Bytes and SHA-256 of a file."""
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return stream.tell(), digest
