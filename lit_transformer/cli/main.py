"""The one entry point: finds the verb, runs it, and turns whatever goes wrong into one line and an exit code."""

import errno
import importlib
import keyword
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from lit_transformer import __version__
from lit_transformer.cli.verbs import VERBS
from lit_transformer.errors import EXIT_DONE, EXIT_ENVIRONMENT, EXIT_USER, LitTransformerError

EXIT_BUG = 1
EXIT_INTERRUPTED = 130
EXIT_PIPE_CLOSED = 141

run_folder: Path | None = None
"""Where the run under way writes, once it is known: the place for the report of a bug."""

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs ``lit-transformer`` and returns its exit code: 0 done, 2 user's mistake, 3 environment, 4 diverged,
    75 stopped by a signal and resumable, 130 interrupted, 1 a bug.

    Args:
        argv: The arguments after the program's name; left out: those of the process.
    """  # fmt: skip
    global run_folder
    run_folder = None
    try:
        code = _run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return code
    except LitTransformerError as error:
        return _fail(_spoken(error, str(error)), error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted", EXIT_INTERRUPTED)
    except BrokenPipeError:  # '... | head': whoever read is gone, and Python would complain at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE_CLOSED
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else EXIT_DONE if error.code is None else EXIT_BUG
    except Exception as error:
        return _unexpected(error)


def _run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        if len(argv) > 1 and argv[0] == "help":
            return _run([argv[1], "--help"])
        print(help_text())
        return EXIT_DONE
    verb, *rest = argv
    if verb in ("-V", "--version"):
        print(f"lit-transformer {__version__}")
        return EXIT_DONE
    if verb not in VERBS:
        from lit_transformer.recipe.suggest import hint

        kind = "option" if verb.startswith("-") else "verb"
        known = hint(verb, [*VERBS, "--help", "--version"]) or "; lit-transformer --help lists them"
        return _fail(f"unknown {kind} '{verb[:60]}'{known}", EXIT_USER)
    name = verb.replace("-", "_")
    module = importlib.import_module(f"lit_transformer.cli.{name}{'_' if keyword.iskeyword(name) else ''}")
    return int(module.run(rest))


def help_text() -> str:
    """What ``lit-transformer --help`` prints."""
    width = max(map(len, VERBS))
    lines = [f"  {name:<{width}}  {summary}" for name, summary in VERBS.items()]
    return "\n".join(
        [
            "usage: lit-transformer VERB ...",
            "",
            "Train, understand and compare Transformers, from recipes.",
            "",
            *lines,
            "",
            "  lit-transformer VERB --help   options of a verb, with an example",
            "  lit-transformer --version     the version",
            "",
            "example:",
            "  lit-transformer fit --config quickstart",
        ]
    )


def _fail(message: str, code: int) -> int:
    line = " ".join(message.split("\n")) if code == EXIT_USER else message
    if line:
        print(f"lit-transformer: {line}", file=sys.stderr)
    return code


def _spoken(error: Exception, message: str) -> str:
    """On several ranks: which one, or nothing where another one says it."""
    told = (error, error.__cause__)  # a line that names a recipe's key has the error itself behind it
    rank = next(filter(None, (getattr(each, "said_by", "") for each in told)), "")
    return "" if any(getattr(each, "quiet", False) for each in told) else f"{rank}: {message}" if rank else message


def _unexpected(error: Exception) -> int:
    """An exception that nobody foresaw: known faults of the machine and of settings first, then a bug."""
    first = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.errno in _FULL + _FORBIDDEN:
        place = f"{error.filename}: " if error.filename else ""
        remedy = "free some space" if error.errno in _FULL else "check its permissions"
        return _fail(f"{place}{os.strerror(error.errno or 0)}; {remedy}", EXIT_ENVIRONMENT)
    if isinstance(error, MemoryError) or "can't allocate memory" in first or "CUDA out of memory" in first:
        return _fail(f"out of memory: {first[:300]}; make the model or the batch smaller", EXIT_ENVIRONMENT)
    if type(error).__name__ == "MisconfigurationException":  # Lightning's word for a wrong setting
        return _fail(first[:600], EXIT_USER)
    report = _write_report()
    where = f"; please report it with {report}" if report else "; please report it"
    if os.environ.get("LIT_TRANSFORMER_DEBUG"):
        traceback.print_exc()
    return _fail(_spoken(error, f"internal error: {type(error).__name__}: {first[:300]}{where}"), EXIT_BUG)


def _write_report() -> Path | None:
    """Writes the traceback of the exception under way to a file."""
    name = f"lit-transformer-error-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    text = f"lit-transformer {__version__}\n{' '.join(sys.argv)}\n\n{traceback.format_exc()}"
    for folder in (run_folder, Path(tempfile.gettempdir())):
        try:
            if folder is not None and folder.is_dir():
                (folder / name).write_text(text, encoding="utf-8")
                return folder / name
        except OSError:
            continue
    return None


if __name__ == "__main__":
    sys.exit(main())
