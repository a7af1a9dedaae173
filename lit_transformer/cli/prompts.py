"""Prompts from the command line, a file or standard input."""

import argparse
import json
import sys
from pathlib import Path

from lit_transformer.errors import EnvironmentFault, UserError


def read_prompts(options: argparse.Namespace) -> list[str] | None:
    """The prompts; None where they are to be asked for."""
    if options.prompt is not None:
        return [checked(options.prompt, "--prompt")]
    if options.prompts is None:
        if sys.stdin is not None and sys.stdin.isatty():
            return None
        return [decoded(read_bytes("-"), "standard input").removesuffix("\n")]
    name = "standard input" if options.prompts == "-" else options.prompts
    text = decoded(read_bytes(options.prompts), name)
    if not text:
        raise UserError(f"{name}: is empty: it should hold one prompt a line")
    # Only a line feed ends a line: other signs that Unicode calls ends of lines are text.
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    if not options.prompts.endswith(".jsonl"):
        return lines
    return [json_prompt(line, f"{name}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]


def json_prompt(line: str, where: str) -> str:
    """The field ``prompt`` of a JSON line."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: is not JSON: {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("prompt"), str):
        names = ", ".join(content) if isinstance(content, dict) else type(content).__name__
        raise UserError(f"{where}: has no text 'prompt' (there is: {names})")
    return checked(content["prompt"], where)


def read_bytes(path: str, option: str = "--prompts") -> bytes:
    """A file's content, or standard input's."""
    try:
        return sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder; {option} takes a file") from None
    except OSError as error:
        raise EnvironmentFault(f"{path}: could not be read: {error.strerror}") from error


def decoded(data: bytes, name: str) -> str:
    """Bytes as text."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: is not UTF-8 text (byte {error.start})") from None


def checked(text: str, where: str) -> str:
    """A text that can be written as UTF-8; arguments that are not come with stray surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{where}: is not UTF-8 text (character {error.start})") from None
    return text
