"""An error that says where in a recipe it is."""

from lit_transformer.errors import UserError


class RecipeError(UserError):
    """A mistake in a recipe or on the command line: ``recipe.yaml:12: model.network.dims.n_head: unknown key; ...``.

    Args:
        message: What is wrong and what to do, in one line.
        file: File as the user named it, or ``command line``.
        line: Line in that file, counted from 1; 0 where there is none.
        key: Key path, such as ``model.network.dims.n_heads``.
    """

    def __init__(self, message: str, file: str = "", line: int = 0, key: str = "") -> None:
        self.message = one_line(message)
        self.file = file
        self.line = line
        self.key = key
        self.others: list[RecipeError] = []
        where = f"{file}:{line}" if line else file
        super().__init__(": ".join(part for part in (where, key, self.message) if part))


def one_line(text: object, limit: int = 600) -> str:
    """The text without line breaks and control characters, shortened to ``limit`` characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


def quote(value: object, limit: int = 60) -> str:
    """A value as it may stand in an error: quoted where it is text, and short."""
    text = one_line(value, limit)
    return f"'{text}'" if isinstance(value, str) else text
