"""The DataModule of supervised fine-tuning: prompts with their responses."""

import logging
import sys
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# The parts that are not named here are imported so that a recipe can name them by their short names.
from lit_transformer.data import docstrings, subwords  # noqa: F401
from lit_transformer.data.batch import PADDING, LanguageBatch
from lit_transformer.data.bucketing import RowBatches, TokenBudget
from lit_transformer.data.chat import ROLES_TEMPLATE, encoded, laid_out
from lit_transformer.data.corpora import Document
from lit_transformer.data.field_file import FieldFile
from lit_transformer.data.layouts import KeepStart, Truncation
from lit_transformer.data.progress import shown
from lit_transformer.data.row_data import RowData
from lit_transformer.data.rows import RowCorpus
from lit_transformer.data.supervised_layouts import DialogueLayout, Flags, OneSequence
from lit_transformer.data.token_file import Ints
from lit_transformer.data.tokenizers import Tokenizer, TokenizerKind
from lit_transformer.data.turns import PromptResponse, Turns
from lit_transformer.errors import UserError
from lit_transformer.vocabulary import Vocabulary

FORMAT = 1
"""Part of the key of the cache: counts up when what is written changes."""


class DialogueRows(RowBatches):
    """The conversations of a split.

    Args:
        file: Their tokens.
        wanted: Which tokens the model is to write.
        layout: How they become what a network reads.
        tokenizer: Knows the special tokens.
        max_len: Most tokens of a conversation.
        truncation: What longer ones lose.
        budget: Says how wide a batch is.
    """

    def __init__(
        self,
        file: FieldFile,
        wanted: NDArray[np.bool_],
        layout: DialogueLayout,
        tokenizer: Tokenizer,
        max_len: int,
        truncation: Truncation,
        budget: TokenBudget,
    ) -> None:
        self.file = file
        self.wanted = wanted
        self.layout = layout
        self.tokenizer = tokenizer
        self.max_len = max_len
        self.truncation = truncation
        self.budget = budget
        starts, sizes = file.starts[:-1], file.lengths[:, 0]
        before = np.concatenate([[0], np.cumsum(wanted)])
        places = np.append(np.flatnonzero(wanted), len(wanted))
        self.counts: Ints = before[file.starts[1:]] - before[starts]
        """(N,) targets of each conversation."""
        self.given: Ints = np.minimum(places[np.searchsorted(places, starts)] - starts, sizes)
        """(N,) tokens before the first that is to be written."""
        for row in np.flatnonzero(sizes > max_len).tolist():
            _, flags = self.dialogue(row)
            self.counts[row] = flags.sum()
            self.given[row] = int(np.argmax(flags)) if flags.any() else len(flags)
        sizes = np.minimum(sizes, max_len)
        self._lengths = layout.lengths(sizes, self.given)

    def __len__(self) -> int:
        return len(self.file)

    def lengths(self, epoch: int) -> Ints:
        """See the base class: the same in every epoch."""
        return self._lengths

    def target_counts(self, ids: Ints) -> Ints:
        """See the base class: the tokens of the responses."""
        return np.where(ids == PADDING, 0, self.counts[ids % len(self)])

    def dialogue(self, number: int) -> tuple[Ints, Flags]:
        """The tokens of a sample, and which are to be written; empty for a row of padding."""
        if number == PADDING:
            return np.zeros(0, np.int64), np.zeros(0, dtype=bool)
        row = number % len(self)
        kept = self.truncation.cut(np.arange(self.file.starts[row], self.file.starts[row + 1]), self.max_len)
        return self.file.tokens[kept].astype(np.int64), self.wanted[kept]

    def batch(self, ids: Ints, window_tokens: int | None = None) -> LanguageBatch:
        """See the base class."""
        tokens = int(self.target_counts(ids).sum()) if window_tokens is None else window_tokens
        start, pad = self.tokenizer.start_id or 0, self.tokenizer.special_id("pad")
        rows = [self.dialogue(number) for number in ids.tolist()]
        return self.layout.batch(rows, self.budget, start, start if pad is None else pad, ids, tokens)

    @property
    def identity(self) -> dict[str, int | str]:
        """The conversations and how they are laid out."""
        return {"corpus": self.file.folder.name, "max_len": self.max_len, "layout": type(self.layout).__name__}


class SupervisedData(RowData):
    """Prompts with responses, laid out by a chat template that is stored with the tokenizer; the responses alone are
    predicted.

    Args:
        corpus: Where the rows come from.
        tokenizer: How text becomes tokens: of a trained model by ``TokenizerFile``. It needs a token that ends texts.
        turns: Where a row holds what: PromptResponse (left out) or Messages.
        template: Jinja2 text that lays out ``messages``, or a file of it that ends in .jinja. Left out: the
            tokenizer's own, or a line a message with the name of its role before it.
        layout: OneSequence (left out), or PromptToEncoder for an encoder-decoder.
        max_len: Most tokens of a conversation.
        truncation: What a longer row loses: KeepStart, KeepEnds. Left out: such a row is an error.
        batches: How rows are put together, in training and evaluation.
        seed: Decides the order of the samples.
        cache_dir: Folder for what is prepared. Left out: ``$LIT_TRANSFORMER_CACHE`` or ``~/.cache/lit_transformer``.
    """

    def __init__(
        self,
        corpus: RowCorpus,
        tokenizer: TokenizerKind,
        turns: Turns | None = None,
        template: str | None = None,
        layout: DialogueLayout | None = None,
        max_len: int = 512,
        truncation: Truncation | None = None,
        batches: TokenBudget | None = None,
        seed: int = 0,
        cache_dir: str | None = None,
    ) -> None:
        super().__init__(batches, seed, 0, cache_dir)
        if max_len < 2:
            raise UserError(f"data.max_len: is {max_len}, must be at least 2")
        self.corpus = corpus
        corpus.cache_dir = str(self.cache.folder)
        self.tokenizer_kind = tokenizer
        self.turns = turns or PromptResponse()
        self.template = template
        self.layout = layout or OneSequence()
        self.max_len = max_len
        self.truncation = truncation
        self._rows: dict[str, DialogueRows] = {}

    @cached_property
    def _given_template(self) -> str | None:
        if self.template is None or not self.template.endswith(".jinja"):
            return self.template
        try:
            return Path(self.template).expanduser().read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{self.template}: cannot read the chat template: {error}") from None

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, trained on the train split at the first use or taken from the cache, with its template."""
        tokenizer = self._trained()
        if tokenizer.eos_id is None:
            raise UserError("data.tokenizer.special_tokens: needs '<eos>' among them, which ends a response")
        return tokenizer.with_chat_template(self._given_template or tokenizer.chat_template or ROLES_TEMPLATE)

    def _trained(self) -> Tokenizer:
        if not self.tokenizer_kind.reads_corpus:
            return self.tokenizer_kind.build(iter(()))

        def build(folder: Path) -> None:
            texts = (document.text for document in shown(self._texts("train"), "Training the tokenizer"))
            (folder / "tokenizer.json").write_text(self.tokenizer_kind.build(texts).to_json(), "utf-8")

        key = {"tokenizer": self.tokenizer_kind.key(), "template": self._given_template, **self._key("train")}
        path = self.cache.entry("tokenizer", key, build) / "tokenizer.json"
        return Tokenizer.from_json(path.read_text("utf-8"), name=str(path))

    def _texts(self, split: str) -> Iterator[Document]:
        """Conversations as text, for training a tokenizer."""
        from lit_transformer.data.tokenizers import Bytes

        template, plain = self._given_template or ROLES_TEMPLATE, Bytes(()).build(iter(()))
        for row in self.corpus.rows(split):
            pieces = laid_out(self.turns.messages(row), template, plain)
            yield Document(row.where, "".join(piece.text for piece in pieces))

    @property
    def vocabulary(self) -> Vocabulary:
        """What the network is told: number of tokens, special ids, longest sequence."""
        return self.tokenizer.vocabulary(max_len=int(self.batches.padded(np.array([self.max_len]))[0]))

    def rows(self, split: str, training: bool) -> DialogueRows:
        """The conversations of a split: the same in training and evaluation.

        Raises:
            UserError: A row without prompt or response, or one that is too long.
        """
        if split not in self._rows:
            self._rows[split] = self._prepared(split)
        return self._rows[split]

    def _key(self, split: str) -> dict[str, object]:
        return {"format": FORMAT, "corpus": self.corpus.fingerprint(split), **self.turns.key}

    def _prepared(self, split: str) -> DialogueRows:
        def build(folder: Path) -> None:
            ids, flags, lengths = [], [], [0]
            dtype = np.dtype(np.uint16 if self.tokenizer.size <= 1 << 16 else np.uint32)
            for row in self.corpus.rows(split):
                pieces = laid_out(self.turns.messages(row), str(self.tokenizer.chat_template), self.tokenizer)
                tokens, wanted = encoded(pieces, self.tokenizer)
                if not wanted.any():
                    raise UserError(f"{row.where}: the chat template leaves nothing to be written; see data.template")
                ids.append(tokens.astype(dtype))
                flags.append(wanted)
                lengths.append(len(tokens))
            np.save(folder / "tokens.npy", np.concatenate(ids))
            np.save(folder / "wanted.npy", np.concatenate(flags))
            np.save(folder / "starts.npy", np.cumsum(lengths, dtype=np.int64))

        key = {"tokenizer": self.tokenizer.fingerprint, "template": self.tokenizer.chat_template, **self._key(split)}
        folder = self.cache.entry("dialogues", key, build)
        file, wanted = FieldFile.open(folder, 1), np.load(folder / "wanted.npy")
        self._check_lengths(split, file)
        truncation = self.truncation or KeepStart()
        return DialogueRows(file, wanted, self.layout, self.tokenizer, self.max_len, truncation, self.batches)

    def _check_lengths(self, split: str, file: FieldFile) -> None:
        lengths = file.lengths[:, 0]
        longer = np.flatnonzero(lengths > self.max_len)
        if not longer.size:
            return
        first = int(longer[0])
        if self.truncation is None:
            where = next(row.where for number, row in enumerate(self.corpus.rows(split)) if number == first)
            raise UserError(
                f"{where}: {lengths[first]} tokens, data.max_len is {self.max_len} ({longer.size} of {len(lengths)} "
                f"rows are longer, the longest has {lengths.max()}); raise it, or cut rows by data.truncation: "
                "KeepStart"
            )
        lost = 1 - np.minimum(lengths, self.max_len).sum() / lengths.sum()
        message = (
            f"{split}: {longer.size:,} of {len(lengths):,} rows are cut to {self.max_len} tokens, {lost:.1%} of all"
        )
        print(message, file=sys.stderr)
        logging.getLogger("lit_transformer.run").info(message)
