"""The line at the end of a checkpoint file that says what the file must be.

A checkpoint is the zip archive that ``torch.save`` writes, with one line of text after it (declared as the archive's
comment, so every zip reader still accepts the file)::

    lit-transformer checkpoint format=1 step=... length=... sha256=...

The digest covers the archive and the line up to the digest itself: no bit of the file is outside it. The line has a
fixed length, so that it is found from the end of the file. It is inside the file and not beside it because two files
can be parted by a kill or a copy.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Any, Protocol

FORMAT = 1
_PREFIX = "\nlit-transformer checkpoint format={format:04d} step={step:020d} length={length:020d} sha256="
_PATTERN = re.compile(
    rb"\nlit-transformer checkpoint format=(\d{4}) step=(\d{20}) length=(\d{20}) sha256=([0-9a-f]{64})\n"
)
FOOTER_BYTES = len(_PREFIX.format(format=0, step=0, length=0)) + 64 + 1


class Hash(Protocol):
    """What ``hashlib`` returns."""

    def update(self, data: Any, /) -> None:
        """Take in more bytes."""

    def hexdigest(self) -> str:
        """The digest so far."""


def new_hash() -> Hash:
    """SHA-256: fast on processors with its instructions, and nobody can aim a collision at it."""
    return hashlib.sha256()


@dataclass(frozen=True)
class Footer:
    """What a checkpoint file says of itself.

    Args:
        step: Number of optimizer steps done.
        length: Bytes before the footer.
        sha256: Digest of those bytes and of the footer's own text before the digest.
        format: Version of the file's layout.
    """

    step: int
    length: int
    sha256: str
    format: int = FORMAT

    @property
    def prefix(self) -> bytes:
        """The footer's text before the digest."""
        return _PREFIX.format(format=self.format, step=self.step, length=self.length).encode()

    def to_bytes(self) -> bytes:
        """The footer as it stands in the file."""
        return self.prefix + self.sha256.encode() + b"\n"

    @classmethod
    def seal(cls, digest: Hash, step: int, length: int) -> "Footer":
        """The footer of a file whose first ``length`` bytes went into ``digest``."""
        digest.update(cls(step, length, "").prefix)
        return cls(step, length, digest.hexdigest())

    @classmethod
    def parse(cls, data: bytes) -> "Footer | None":
        """The footer that the last ``FOOTER_BYTES`` bytes of a file spell; ``None`` where they spell none."""
        match = _PATTERN.fullmatch(data)
        if match is None:
            return None
        version, step, length, digest = match.groups()
        return cls(int(step), int(length), digest.decode(), int(version))
