"""``lit-transformer serve``: a model behind OpenAI's completions API, and a page to try it."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lit_transformer.cli.model_options import add_hold_option, add_model_options, at_least, load_model
from lit_transformer.cli.options import OptionParser
from lit_transformer.errors import EXIT_DONE, EnvironmentFault, UserError

if TYPE_CHECKING:
    from lit_transformer.generation import Model
    from lit_transformer.serving import Limits


def parser() -> OptionParser:
    """The verb's options."""
    result = OptionParser(
        "serve",
        "Serve a model over HTTP: /v1/completions as OpenAI's clients speak it (streaming too), /v1/models, /health,\n"
        "and a page to try it at /. Requests are batched as they come. Only this machine can reach the server,\n"
        "unless told otherwise.",
        "lit-transformer serve --checkpoint runs/quickstart/20260101-120000 --port 8000",
    )
    add_model_options(result)
    add_hold_option(result)
    add = result.add_argument
    add("--name", metavar="NAME", help="what the model is called (default: that of its recipe or file)")
    add("--host", default="127.0.0.1", metavar="ADDRESS", help="address to listen at (default: %(default)s)")
    add("--port", type=int, default=8000, metavar="N", help="port; 0 takes a free one (default: %(default)s)")
    add("--allow_remote", action="store_true", help="let an address be one that others can reach: there is no "
        "password, so put a server in front that has one")  # fmt: skip
    add("--allow_host", action="append", default=[], metavar="NAME", help="a further name that browsers may ask for; "
        "may be repeated")  # fmt: skip
    add("--check", action="store_true", help="say what would be served, and stop")
    group = result.add_argument_group("limits")
    add = group.add_argument
    add("--slots", type=int, default=16, metavar="N", help="texts written at the same time (default: %(default)s)")
    add("--waiting", type=int, default=128, metavar="N", help="texts that wait for a slot; more are refused with 429 "
        "(default: %(default)s)")  # fmt: skip
    add("--context", type=int, metavar="N", help="most tokens of a prompt and its text (default: what the model was "
        "trained with)")  # fmt: skip
    add("--max_new_tokens", type=int, metavar="N", help="most tokens of a text (default: the context)")
    add("--max_texts", type=int, default=16, metavar="N", help="most texts of a request (default: %(default)s)")
    add("--max_seconds", type=float, default=120.0, metavar="X", help="longest time of a request (default: 120)")
    add("--max_body", type=int, default=1 << 20, metavar="BYTES", help="largest request (default: %(default)s)")
    add("--max_connections", type=int, default=512, metavar="N", help="connections at the same time; more are refused "
        "with 503 (default: %(default)s)")  # fmt: skip
    return result


def run(argv: list[str]) -> int:
    """Runs the verb."""
    options = parser().parse_args(argv)
    at_least(
        options, slots=1, waiting=0, context=2, max_new_tokens=1, max_texts=1, max_body=1, max_connections=1, port=0
    )
    if options.port > 65535 or not options.max_seconds > 0:
        raise UserError("--port: at most 65535; --max_seconds: above 0")
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError:
        raise EnvironmentFault("serve: needs FastAPI and uvicorn: pip install 'lit-transformer[serve]'") from None
    from lit_transformer.serving.server import Place, address_of, listening, server_of

    place = Place(
        host=options.host,
        port=options.port,
        remote=options.allow_remote,
        names=tuple(name.lower() for name in options.allow_host),
        connections=options.max_connections,
        body_bytes=options.max_body,
    )
    found = listening(place)  # a port that is taken is said before the model is read
    with found:
        model = load_model(options, options.slots)
        name = options.name or name_of(options.checkpoint)
        server = server_of(model, name, limits_of(options, model), place)
        if options.check:
            print(f"would serve {name} at {address_of(found)}")
            return EXIT_DONE
        said = f"serving {name} at {address_of(found)} (Ctrl-C stops)"
        server.ready = lambda: print(said, file=sys.stderr, flush=True)
        server.run([found])
    return EXIT_DONE


def limits_of(options: argparse.Namespace, model: "Model") -> "Limits":
    """What the engine takes on."""
    from lit_transformer.generation.decoding import check
    from lit_transformer.serving import Limits

    context = check(model.network, [], options.context) or 1024
    return Limits(
        slots=options.slots,
        waiting=options.waiting,
        context=context,
        max_new_tokens=min(context, options.max_new_tokens or context),
        rows=options.max_texts,
        seconds=options.max_seconds,
    )


def name_of(checkpoint: str) -> str:
    """A name for a model: its recipe's where the path tells it, else the file's."""
    path = Path(checkpoint).absolute()
    parts = path.parts
    if "runs" in parts[:-2]:
        return parts[len(parts) - 1 - parts[::-1].index("runs") + 1]
    return path.stem if path.suffix else path.name
