"""Finding the line of a recipe that an error is about, when it comes from the part that the line names."""

import argparse
import re
from collections.abc import Iterator
from types import FrameType

from lit_transformer.cli.resolution import Resolution
from lit_transformer.errors import LitTransformerError, UserError
from lit_transformer.recipe.errors import RecipeError, one_line
from lit_transformer.recipe.tree import Mapping, Mark, find_suffix, locate

_CONSTRUCTION = (ValueError, RuntimeError, AssertionError, OverflowError, ArithmeticError, ImportError)


def located(error: Exception, resolution: Resolution) -> Exception:
    """The error with file, line and key where they can be told; the same error where they cannot.

    Errors with a ``key`` (sizes) are found by it. Others are put down to the part whose constructor raised them.
    """
    while not isinstance(error, LitTransformerError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # jsonargparse wraps what a constructor raised
    if isinstance(error, RecipeError):
        return error
    if isinstance(error, argparse.ArgumentError):
        return _of_parser(error, resolution)
    if isinstance(error, LitTransformerError) and not isinstance(error, UserError):
        return error
    if isinstance(error, RuntimeError) and str(error).startswith("Error(s) in loading state_dict"):
        return UserError(f"the checkpoint's weights do not fit this recipe's network: {one_line(error, 400)}")
    misconfigured = type(error).__name__ == "MisconfigurationException"
    if not isinstance(error, UserError) and not misconfigured and not isinstance(error, _CONSTRUCTION):
        return error
    message = _simpler(one_line(error)) or type(error).__name__
    key = getattr(error, "key", "")
    if not key and (said := re.match(r"((?:model|data|trainer)(?:\.[a-z_0-9]+)+): ", message)):
        key = said[1]
    if key:
        message = message.removeprefix(f"{key}: ")
        found = _find(key, resolution)
        return RecipeError(message, found[0].file, found[0].line, found[1])
    if (part := _raising_part(error, resolution)) is not None:
        mark, where = part
        named = re.match(r"([a-z_][a-z0-9_]*): ", message)
        if named and (inner := locate(resolution.tree, f"{where}.{named[1]}")):
            mark, where, message = inner[0], f"{where}.{named[1]}", message[named.end() :]
        message = message.removeprefix(f"{where}: ")
        if where == "trainer" and (inner_key := _mentioned(message, resolution)):
            mark, where = _find(f"trainer.{inner_key}", resolution)
        return RecipeError(message, mark.file, mark.line, where)
    return error


def _find(key: str, resolution: Resolution) -> tuple[Mark, str]:
    """Where a key stands, or the nearest thing above it that is written."""
    tree = resolution.tree
    if exact := locate(tree, key):
        return exact
    parts = key.split(".")
    for length in range(len(parts), 0, -1):
        if found := find_suffix(tree, ".".join(parts[:length])):
            return found[0], ".".join([found[1], *parts[length:]])
    return tree.marks.get("model", tree.mark), key


def _raising_part(error: Exception, resolution: Resolution) -> tuple[Mark, str] | None:
    """The innermost part of the recipe whose constructor the error passed through."""
    keys: dict[type, str] = {}
    for key, cls in resolution.resolver.parts.items():
        keys.setdefault(cls, key)
    for frame in reversed(list(_frames(error))):
        owner = frame.f_locals.get("self")
        if type(owner) not in keys:
            continue
        library = type(owner).__module__.startswith("lightning.")
        if library or frame.f_code.co_name in ("__init__", "__post_init__"):
            found = locate(resolution.tree, re.sub(r"\[\d+\].*", "", keys[type(owner)]))
            return (found[0] if found else resolution.tree.mark), keys[type(owner)]
    return None


def _mentioned(message: str, resolution: Resolution) -> str | None:
    """The key under ``trainer`` that Lightning's message talks about, if it names one."""
    node = resolution.tree.items.get("trainer")
    keys = list(node.items) if isinstance(node, Mapping) else []
    named = [key for key in keys if re.search(rf"\b{key}\b", message)]
    return named[0] if len(named) == 1 else None


def _simpler(message: str) -> str:
    """Words for what torch says when sizes are absurd."""
    if asked := re.search(r"tried to allocate (\d+) bytes", message):
        return f"is too large for this machine: one tensor of it takes {int(asked[1]) / 1e9:,.0f} GB"
    if "Storage size calculation overflowed" in message or "numel: integer multiplication overflow" in message:
        return "is too large for any machine"
    return message


def _frames(error: Exception) -> Iterator[FrameType]:
    trace = error.__traceback__
    while trace is not None:
        yield trace.tb_frame
        trace = trace.tb_next


def _of_parser(error: argparse.ArgumentError, resolution: Resolution) -> RecipeError:
    """jsonargparse's own complaint, about something that the checks before it did not see."""
    text = str(error)
    keys = [k.replace("init_args.", "") for k in re.findall(r'Parser key "([^"]+)"', text)]
    key = ".".join(keys)
    lines = [line.strip(" -") for line in text.split("\n") if line.strip(" -")]
    lines = [line for line in lines if not line.startswith(("Given value", "Subtypes", "Errors:"))]
    found = locate(resolution.tree, key) if key else None
    mark = found[0] if found else resolution.tree.mark
    return RecipeError(lines[min(2, len(lines) - 1)] if lines else text, mark.file, mark.line, key)
