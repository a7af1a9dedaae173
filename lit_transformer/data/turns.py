"""Where the turns of a conversation stand in a row."""

from typing import Any

from lit_transformer.data.chat import Message
from lit_transformer.data.rows import Row
from lit_transformer.errors import UserError


class Turns:
    """Base of the ways that rows hold conversations."""

    def messages(self, row: Row) -> list[Message]:
        """The messages of a row, each with ``role`` and ``content``.

        Raises:
            UserError: The row holds none, or one that is empty.
        """
        raise NotImplementedError

    @property
    def key(self) -> dict[str, Any]:
        """What the messages depend on beside the row; plain data, part of the key of the cache."""
        return {"turns": type(self).__qualname__, **vars(self)}


class PromptResponse(Turns):
    """A field for the prompt and one for the response.

    Args:
        prompt: Name of the field that the model is given.
        response: Name of the field that it is to write.
    """

    def __init__(self, prompt: str = "prompt", response: str = "response") -> None:
        self.prompt = prompt
        self.response = response

    def messages(self, row: Row) -> list[Message]:
        """See the base class."""
        prompt, response = row.text(self.prompt), row.text(self.response)
        for name, text in ((self.prompt, prompt), (self.response, response)):
            if not text.strip():
                raise UserError(f"{row.where}: field {name!r} is empty; fill it in, or leave the row out")
        return [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]


class Messages(Turns):
    """A field with a list of messages, as ``[{"role": "user", "content": "..."}, {"role": "assistant", ...}]``.

    Args:
        field: Name of the field.
        role: Name of a message's field that says who wrote it; the model is the ``assistant``.
        content: Name of a message's field that holds what was written.
    """

    def __init__(self, field: str = "messages", role: str = "role", content: str = "content") -> None:
        self.field = field
        self.role = role
        self.content = content

    def messages(self, row: Row) -> list[Message]:
        """See the base class."""
        given = row.value(self.field)
        if not isinstance(given, list) or not all(isinstance(message, dict) for message in given):
            raise UserError(f"{row.where}: field {self.field!r} must be a list of messages with role and content")
        found = list[Message]()
        for number, message in enumerate(given, 1):
            role, content = message.get(self.role), message.get(self.content)
            if not isinstance(role, str) or not isinstance(content, str) or not content.strip():
                raise UserError(
                    f"{row.where}: message {number} of {self.field!r} needs text under {self.role!r} and "
                    f"{self.content!r}"
                )
            found.append({"role": role, "content": content})
        if not any(message["role"] == "assistant" for message in found):
            raise UserError(
                f"{row.where}: no message of {self.field!r} is the assistant's, so there is nothing to learn"
            )
        return found
