"""The tokenizer of a folder: its ``tokenizer.json``, and which of its tokens play which role."""

import json
from dataclasses import dataclass, field
from typing import Any

from lit_transformer.errors import UserError
from lit_transformer.interop.config import Config
from lit_transformer.interop.folder import Folder
from lit_transformer.vocabulary import Vocabulary

ROLES = ("bos", "eos", "unk", "pad", "mask", "cls", "sep")


@dataclass(frozen=True)
class Tokens:
    """A tokenizer and the roles of its special tokens.

    Args:
        text: The ``tokenizer.json``; None: there is none.
        roles: Name of the token for each role.
        ids: Ids of the roles, where there is no tokenizer to ask.
        size: Number of tokens; None: not known.
    """

    text: str | None
    roles: dict[str, str] = field(default_factory=dict)
    ids: dict[str, int] = field(default_factory=dict)
    size: int | None = None

    @classmethod
    def of(cls, folder: Folder, config: Config, generation: Config, start_id: int | None, task: str) -> "Tokens":
        """What a folder says.

        Args:
            folder: The folder.
            config: Its ``config.json``.
            generation: Its ``generation_config.json``.
            start_id: What a decoder beside an encoder begins with.
            task: What the model is for.

        Raises:
            UserError: The ``tokenizer.json`` is none.
        """
        given: dict[str, int | None] = {}
        for role in ("bos", "eos", "pad"):
            found = generation.token(f"{role}_token_id")
            given[role] = config.token(f"{role}_token_id") if found is None else found
        if start_id is not None:
            given["bos"] = start_id
        elif given["bos"] == given["eos"]:
            given["bos"] = None
        ids = {role: number for role, number in given.items() if number is not None}
        text = folder.text("tokenizer.json")
        if text is None:
            return cls(None, ids=ids)
        backend = _backend(text, str(folder.path / "tokenizer.json"))
        names = _named(folder)
        roles = {role: name for role in ROLES if (name := names.get(role)) and backend.token_to_id(name) is not None}
        for role, number in ids.items():
            if role not in names and (name := backend.id_to_token(number)) is not None:
                roles.setdefault(role, name)
        if start_id is not None and (name := backend.id_to_token(start_id)) is not None:
            roles["bos"] = name
        elif "bos" in roles and roles["bos"] == roles.get("eos"):
            del roles["bos"]
        size = max(backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        known = {role: backend.token_to_id(name) for role, name in roles.items()}
        return cls(text, roles, known, size)

    def vocabulary(self, rows: int) -> Vocabulary:
        """Sizes and special ids beside a table of so many rows.

        Raises:
            UserError: The tokenizer has tokens that the table has no row for.
        """
        if self.size is not None and self.size > rows:
            raise UserError(
                f"tokenizer.json has {self.size} tokens and the model {rows} embeddings: the last ones have none; "
                "use the tokenizer that the model was trained with"
            )
        ids = {f"{role}_id": self.ids.get(role) for role in ("pad", "bos", "eos", "unk", "mask")}
        return Vocabulary(size=rows if self.size is None else self.size, **ids)


def _backend(text: str, where: str) -> Any:
    import tokenizers

    try:
        return tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises plain Exception
        raise UserError(f"{where}: is no tokenizer: {str(error).splitlines()[0][:120]}") from None


def _named(folder: Folder) -> dict[str, str | None]:
    """The names that the folder gives to roles; None: it says that there is none."""
    found: dict[str, str | None] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        content = folder.json(name) or {}
        for role in ROLES:
            value = content.get(f"{role}_token", False)
            value = value.get("content") if isinstance(value, dict) else value
            if isinstance(value, str) or (value is None and role not in found):
                found[role] = value
    return found


def tokenizer_files(text: str, max_len: int | None) -> dict[str, Any]:
    """The files that ``AutoTokenizer`` loads a tokenizer from, by name.

    Args:
        text: The tokenizer of a checkpoint: a ``tokenizer.json``, with roles around it or not.
        max_len: The longest text of the model.
    """
    content = json.loads(text)
    roles: dict[str, str] = {}
    if content.keys() == {"special_tokens", "tokenizer"}:
        roles, content = content["special_tokens"], content["tokenizer"]
    added = {each["content"] for each in content.get("added_tokens", [])}
    usual = {
        "pad": ("<pad>", "[PAD]", "<|pad|>"),
        "bos": ("<bos>", "<s>", "<|begin_of_text|>", "<|startoftext|>"),
        "eos": ("<eos>", "</s>", "<|endoftext|>", "<|end_of_text|>"),
        "unk": ("<unk>", "[UNK]"),
        "mask": ("<mask>", "[MASK]"),
        "cls": ("<cls>", "[CLS]"),
        "sep": ("<sep>", "[SEP]"),
    }
    told = {role: next((name for name in names if name in added), None) for role, names in usual.items()}
    told = {**told, **roles}
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    if max_len is not None:
        config["model_max_length"] = max_len
    config |= {f"{role}_token": name for role, name in told.items() if name is not None}
    return {"tokenizer.json": content, "tokenizer_config.json": config}
