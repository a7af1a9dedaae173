"""The tokenizer: text to token ids and back."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Self

# Said by `tokenizers` itself, or every worker of a DataLoader prints a warning about forking.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
# A forked child has none of the threads of its parent's pool and would wait for them for ever.
os.register_at_fork(after_in_child=lambda: os.environ.__setitem__("TOKENIZERS_PARALLELISM", "false"))

import tokenizers  # noqa: E402
from tokenizers import Regex, decoders, models, pre_tokenizers  # noqa: E402

from lit_transformer.errors import UserError  # noqa: E402
from lit_transformer.vocabulary import Vocabulary  # noqa: E402

PATTERN = r"[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+|[ \t]*+[\r\n]++[ \t]*+| ?+[^\s\p{L}\p{N}]++|\s+(?!\S)|\s+"
"""What byte-level BPE never merges across: words with one sign before them, up to three digits, an end of line with the
indentation after it, other signs. On Python source it gives 4 % fewer tokens than GPT-2's pattern."""

ROLES: dict[str, tuple[str, ...]] = {
    "pad": ("<pad>", "[PAD]", "<|pad|>"),
    "bos": ("<bos>", "<s>", "[CLS]", "<|begin_of_text|>", "<|startoftext|>"),
    "eos": ("<eos>", "</s>", "[SEP]", "<|endoftext|>", "<|end_of_text|>"),
    "unk": ("<unk>", "[UNK]"),
    "mask": ("<mask>", "[MASK]"),
    "cls": ("<cls>", "[CLS]"),
    "sep": ("<sep>", "[SEP]"),
}
"""The names that special tokens go by; the first one is ours."""

LATER_ROLES = ("cls", "sep")
"""Not in a fingerprint where there are none: those of tokenizers that know nothing of these roles stay what they were.
"""

PIECE = 1 << 20
"""Longer texts are tokenised in pieces of about this many characters, where a piece cannot change the result."""


def byte_level(pattern: str) -> pre_tokenizers.PreTokenizer:
    """Cuts a text by a pattern and spells the pieces in the 256 symbols of byte-level BPE."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def words() -> pre_tokenizers.PreTokenizer:
    """Words between spaces; the end of a line is a word of its own."""
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.Split(Regex(r"[^\S\n]+"), "removed")]
    )


def _state(part: pre_tokenizers.PreTokenizer) -> bytes:
    return bytes(part.__getstate__())


class Tokenizer:
    """A ``tokenizers.Tokenizer`` with the roles of its special tokens.

    A special token written out in a text is text: only the data puts special ids between documents.

    Args:
        backend: The tokenizer of the library.
        special_tokens: Name of the token for each role (``pad``, ``bos``, ``eos``, ``unk``, ``mask``, ``cls``,
            ``sep``). Left out: told by the usual names.
        chat_template: Jinja2 text that lays out a conversation; no part of the fingerprint, as ids mean the same.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        special_tokens: Mapping[str, str] | None = None,
        chat_template: str | None = None,
    ) -> None:
        self.backend = backend
        self.chat_template = chat_template
        backend.no_padding()
        backend.no_truncation()
        backend.encode_special_tokens = True
        added = {token.content for token in backend.get_added_tokens_decoder().values()}
        usual = {role: next((name for name in names if name in added), None) for role, names in ROLES.items()}
        chosen = {**usual, **(special_tokens or {})}
        self.special_tokens: dict[str, str] = {role: name for role, name in chosen.items() if name is not None}
        self._usual = self.special_tokens == {role: name for role, name in usual.items() if name is not None}
        for role, name in self.special_tokens.items():
            if backend.token_to_id(name) is None:
                raise UserError(f"data.tokenizer: the {role} token {name!r} is not in the vocabulary")

    def special_id(self, role: str) -> int | None:
        """The id of the token for ``pad``, ``bos``, ``eos``, ``unk``, ``mask``, ``cls`` or ``sep``."""
        name = self.special_tokens.get(role)
        return None if name is None else self.backend.token_to_id(name)

    @property
    def eos_id(self) -> int | None:
        """Ends a document."""
        return self.special_id("eos")

    @property
    def start_id(self) -> int | None:
        """What the first token of a document is predicted from: bos, or eos where there is no bos."""
        bos = self.special_id("bos")
        return self.eos_id if bos is None else bos

    @property
    def cls_id(self) -> int | None:
        """Stands before a text and for all of it: cls, or what begins a text where there is no cls."""
        cls = self.special_id("cls")
        return self.start_id if cls is None else cls

    @property
    def sep_id(self) -> int | None:
        """Stands between two texts of a row: sep, or what ends a text where there is no sep."""
        sep = self.special_id("sep")
        return self.eos_id if sep is None else sep

    @property
    def counts_words(self) -> bool:
        """Whether a token is a word, so that the loss per token is the loss per word."""
        return isinstance(self.backend.model, models.WordLevel)

    @cached_property
    def size(self) -> int:
        """Number of tokens V: one more than the largest id."""
        return max(self.backend.get_vocab(with_added_tokens=True).values()) + 1

    def __len__(self) -> int:
        return self.size

    def vocabulary(self, max_len: int | None = None) -> Vocabulary:
        """What a network is told of this tokenizer."""
        ids = {f"{role}_id": self.special_id(role) for role in ROLES if role not in LATER_ROLES}
        return Vocabulary(size=self.size, max_len=max_len, **ids)

    def with_special_tokens(self, names: Sequence[str]) -> Self:
        """This tokenizer with further tokens that stand for no text, at the end of the vocabulary."""
        larger = self.from_json(self.to_json())
        larger.backend.add_special_tokens(list(names))
        return type(self)(larger.backend, larger.special_tokens, self.chat_template)

    def with_chat_template(self, template: str) -> Self:
        """This tokenizer with another way to lay out a conversation."""
        return type(self)(self.backend, self.special_tokens, template)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without special ids around it.

        Raises:
            UserError: A character that the vocabulary does not have, where there is no unk token either.
        """
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of many texts, on all cores."""
        pieces = [list(self._pieces(text)) for text in texts]
        for text in texts:
            if unknown := self.unknown(text):
                raise UserError(
                    f"character {unknown!r} is not in the vocabulary and there is no unk token; add '<unk>' to "
                    "data.tokenizer.special_tokens or use ByteLevelBPE"
                )
        flat = [piece for some in pieces for piece in some]
        encoded = iter(self.backend.encode_batch_fast(flat, add_special_tokens=False))
        return [[token for _ in some for token in next(encoded).ids] for some in pieces]

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """The text of token ids."""
        return self.backend.decode(list(ids), skip_special_tokens=skip_special_tokens)

    def unknown(self, text: str) -> str | None:
        """A character that can neither be represented nor stand as unk; None if there is none."""
        if self._alphabet is None:
            return None
        return min(set(text) - self._alphabet, default=None)

    def byte_length(self, token: int) -> int:
        """Number of UTF-8 bytes of the text that a token stands for."""
        name = self.backend.id_to_token(token) or ""
        byte_level = isinstance(self.backend.decoder, decoders.ByteLevel)
        return len(name) if byte_level and token not in self.special_ids else len(self.decode([token]).encode())

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """The tokens that stand for no text."""
        return frozenset(self.backend.get_added_tokens_decoder())

    @cached_property
    def _alphabet(self) -> frozenset[str] | None:
        """The characters that a tokenizer without unk knows; None where every text can be represented."""
        model = self.backend.model
        if isinstance(self.backend.decoder, decoders.ByteLevel) or getattr(model, "unk_token", None) is not None:
            return None
        if getattr(model, "byte_fallback", False) or not isinstance(model, models.BPE):
            return None
        return frozenset(name for name in self.backend.get_vocab(with_added_tokens=False) if len(name) == 1)

    @cached_property
    def _cuts_at_lines(self) -> bool:
        """Whether a cut before a line that starts with no space leaves the tokens as they are: for our own kinds."""
        splitter = self.backend.pre_tokenizer
        if self.backend.normalizer is not None:
            return False
        if splitter is None:
            return not json.loads(self.backend.to_str())["model"].get("merges", True)
        return any(_state(splitter) == _state(ours) for ours in (byte_level(PATTERN), words()))

    def _pieces(self, text: str) -> Iterator[str]:
        start = 0
        while len(text) - start > PIECE and self._cuts_at_lines:
            cut = start + PIECE
            while cut < len(text) and not (text[cut - 1] == "\n" and not text[cut].isspace()):
                cut = text.find("\n", cut) + 1 or len(text)
            yield text[start:cut]
            start = cut
        yield text[start:]

    def to_json(self) -> str:
        """The ``tokenizer.json`` text; a chat template, and roles that the names do not tell, are added around it."""
        text: str = self.backend.to_str(pretty=False)
        around: dict[str, object] = {} if self._usual else {"special_tokens": self.special_tokens}
        if self.chat_template is not None:
            around["chat_template"] = self.chat_template
        return json.dumps({**around, "tokenizer": json.loads(text)}, ensure_ascii=False) if around else text

    @classmethod
    def from_json(cls, text: str, special_tokens: Mapping[str, str] | None = None, name: str = "tokenizer") -> Self:
        """Reads what ``to_json`` wrote, or any ``tokenizer.json``; ``name`` is what an error calls it."""
        template = None
        try:
            content = json.loads(text)
            around = {"special_tokens", "chat_template", "tokenizer"}
            if isinstance(content, dict) and "tokenizer" in content and content.keys() <= around:
                special_tokens = {**content.get("special_tokens", {}), **(special_tokens or {})}
                template = content.get("chat_template")
                if not isinstance(template, str | None):
                    raise TypeError("the chat template is no text")
                text = json.dumps(content["tokenizer"], ensure_ascii=False)
            backend = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises plain Exception
            raise UserError(f"{name}: not a tokenizer.json: {str(error).splitlines()[0]}") from None
        return cls(backend, special_tokens, template)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON and of the special ids."""
        ids = {role: self.special_id(role) for role in ROLES}
        known = {role: number for role, number in ids.items() if role not in LATER_ROLES or number is not None}
        content = [json.loads(self.backend.to_str()), known]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
