"""Conversations as text: Jinja2 templates like those of model hubs, and which tokens of them a model is to write."""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from numpy.typing import NDArray

from lit_transformer.data.token_file import Ints
from lit_transformer.data.tokenizer import ROLES, Tokenizer
from lit_transformer.errors import UserError

ROLES_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'assistant' %}{{ 'Assistant: ' }}"
    "{% generation %}{{ message.content + eos_token }}{% endgeneration %}{% else %}"
    "{{ message.role | capitalize + ': ' + message.content + '\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}"
)
"""A line a message with the name of its role before it; an assistant's ends with the token that ends texts."""

Message = Mapping[str, str]

# Contents are not put into the template but behind it: what a user writes can neither end a turn nor begin another.
_CONTENT, _START, _STOP = "\ue000{}\ue000", "\ue001", "\ue002"
_PARTS = re.compile("\ue000(\\d+)\ue000|(\ue001)|(\ue002)")


class Piece(NamedTuple):
    """A part of a conversation as text.

    Args:
        text: The text.
        content: Whether it is what somebody wrote; else it is the template's, in which special tokens are tokens.
        wanted: Whether the model is to write it.
    """

    text: str
    content: bool
    wanted: bool


class _Generation(Extension):
    """``{% generation %}``: around what the model is to write."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("wrap"), [], [], body).set_lineno(line)

    def wrap(self, caller: Any) -> str:
        return f"{_START}{caller()}{_STOP}"


def _refuse(message: str) -> None:
    raise UserError(f"the chat template refuses the conversation: {message}")


@lru_cache
def _compiled(template: str) -> Any:
    # A template comes with a checkpoint, perhaps a stranger's: it runs in a sandbox and changes nothing.
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.globals["raise_exception"] = _refuse
    try:
        return environment.from_string(template)
    except TemplateError as error:
        raise UserError(f"data.template: not a Jinja2 template: {' '.join(str(error).split())}") from None


def laid_out(
    messages: Sequence[Message], template: str, tokenizer: Tokenizer, add_generation_prompt: bool = False
) -> list[Piece]:
    """A conversation as text, piece by piece.

    The template sees ``messages`` (each with ``role`` and ``content``), ``add_generation_prompt``, and the special
    tokens as ``bos_token``, ``eos_token``, ...; it stands for a content and cannot change it. What lies between
    ``{% generation %}`` and ``{% endgeneration %}`` is to be written by the model; where a template says nothing, the
    contents of the assistant, and the special token behind each.

    Raises:
        UserError: A broken template, or one that refuses the conversation.
    """
    stand_ins = [{**message, "content": _CONTENT.format(number)} for number, message in enumerate(messages)]
    special = {f"{role}_token": tokenizer.special_tokens.get(role, "") for role in ROLES}
    try:
        text = _compiled(template).render(messages=stand_ins, add_generation_prompt=add_generation_prompt, **special)
    except TemplateError as error:
        raise UserError(f"data.template: fails on a conversation: {' '.join(str(error).split())}") from None
    says = _START in text
    pieces, place, wanted = list[Piece](), 0, False
    for found in _PARTS.finditer(text):
        pieces.append(Piece(text[place : found.start()], False, wanted))
        place = found.end()
        if found[1] is not None:
            message = messages[int(found[1])]
            pieces.append(Piece(message["content"], True, wanted if says else message["role"] == "assistant"))
        else:
            wanted = found[2] is not None
    pieces.append(Piece(text[place:], False, False))
    return [piece for piece in pieces if piece.text]


def encoded(pieces: Sequence[Piece], tokenizer: Tokenizer) -> tuple[Ints, NDArray[np.bool_]]:
    """(L,) the tokens of a conversation, and (L,) which of them the model is to write."""
    names = {token.content: number for number, token in tokenizer.backend.get_added_tokens_decoder().items()}
    special = re.compile("|".join(map(re.escape, sorted(names, key=len, reverse=True))) or r"(?!)")
    ids, wanted = list[int](), list[bool]()
    for number, piece in enumerate(pieces):
        found = [] if piece.content else list(special.finditer(piece.text))
        place, here = 0, list[int]()
        for match in found:
            here += [*(tokenizer.encode(piece.text[place : match.start()]) if match.start() > place else []),
                     names[match[0]]]  # fmt: skip
            place = match.end()
        here += tokenizer.encode(piece.text[place:]) if place < len(piece.text) else []
        flags = [piece.wanted] * len(here)
        before = pieces[number - 1] if number else None
        if before is not None and before.wanted and before.content and found and found[0].start() == 0:
            flags[0] = True  # a template that does not say what is to be written: also the end of the turn
        ids += here
        wanted += flags
    return np.array(ids, dtype=np.int64), np.array(wanted, dtype=bool)


def prompt_ids(messages: Sequence[Message], tokenizer: Tokenizer) -> list[int]:
    """The tokens that an answer follows, by the tokenizer's own template."""
    template = tokenizer.chat_template or ROLES_TEMPLATE
    ids: list[int] = encoded(laid_out(messages, template, tokenizer, True), tokenizer)[0].tolist()
    return ids
