"""What the data tells a network before it is built."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Vocabulary:
    """Number of tokens, special ids and the length that sequences are cut to.

    Plain integers only: it is stored in checkpoints and compared when they are loaded.

    Args:
        size: Number of target tokens V (of the only vocabulary, where there is one).
        source_size: Number of source tokens, for a task with a vocabulary of its own there.
        pad_id: Filler; never a target and never looked at.
        bos_id: Begins a sequence.
        eos_id: Ends a document.
        unk_id: Stands for what the tokenizer does not know.
        mask_id: Hides a token from a masked language model.
        max_len: Longest sequence that the data produces.
    """

    size: int
    source_size: int | None = None
    pad_id: int | None = None
    bos_id: int | None = None
    eos_id: int | None = None
    unk_id: int | None = None
    mask_id: int | None = None
    max_len: int | None = None

    @property
    def start_id(self) -> int | None:
        """What a decoder beside an encoder begins with: ``bos_id``, else ``eos_id``."""
        return self.eos_id if self.bos_id is None else self.bos_id
