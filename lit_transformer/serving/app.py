"""The application: OpenAI's completions over HTTP, and a page to try them."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from lit_transformer import __version__, generation
from lit_transformer.errors import UserError
from lit_transformer.serving.answers import Answer, data
from lit_transformer.serving.engine import Busy, Engine
from lit_transformer.serving.guard import problem
from lit_transformer.serving.requests import Event, Job, Want
from lit_transformer.serving.schema import CompletionRequest

RETRY_SECONDS = 1

PAGE = {
    "": ("index.html", "text/html"),
    "page.css": ("page.css", "text/css"),
    "page.js": ("page.js", "text/javascript"),
}


def application(engine: Engine, name: str) -> FastAPI:
    """The application for a model.

    Args:
        engine: Decodes; started with the application and closed with it.
        name: What the model is called.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        engine.start()
        yield
        await run_in_threadpool(engine.close)

    # No pages of documentation: FastAPI's load their scripts from elsewhere.
    app = FastAPI(title="lit_transformer", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    created = int(time.time())
    described = {"id": name, "object": "model", "created": created, "owned_by": "lit_transformer"}
    add_errors(app)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """Whether the server decodes, and how much there is to do."""
        if not engine.is_alive():
            raise HTTPException(503, "the engine has stopped")
        return {"status": "ok", "active": len(engine.active), "waiting": len(engine.waiting),
                "slots": engine.limits.slots}  # fmt: skip

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The models: one."""
        limits = {"context": engine.limits.context, "max_tokens": engine.limits.max_new_tokens}
        return {"object": "list", "data": [{**described, **limits, "continues": engine.model.prompting.continues}]}

    @app.get("/v1/models/{model}", responses={404: {"description": "no such model"}})
    async def one(model: str) -> dict[str, Any]:
        """A model."""
        if model != name:
            raise HTTPException(404, f"there is no model {model[:100]!r}; there is: {name}")
        return described

    @app.post("/v1/completions", response_model=None, responses=FAULTS)
    async def completions(body: CompletionRequest, request: Request) -> Response:
        """What follows a prompt."""
        if body.model is not None and body.model != name:
            raise HTTPException(404, f"there is no model {body.model[:100]!r}; there is: {name}")
        want = wanted(body, engine.model.network.vocabulary.size)
        prompts = prompts_of(body)
        loop, events = asyncio.get_running_loop(), asyncio.Queue[Event]()

        def deliver(event: Event) -> None:
            loop.call_soon_threadsafe(events.put_nowait, event)

        job, read = await run_in_threadpool(engine.submit, prompts, want, deliver)
        answer = Answer(name, prompts, engine.model.tokenizer, want, read, bool(body.echo))
        if body.stream:
            usage = body.stream_options is not None and body.stream_options.include_usage
            return StreamingResponse(streamed(engine, job, events, answer, usage), media_type="text/event-stream")
        return await whole(engine, job, events, answer, request)

    def add_file(path: str, file: str, kind: str) -> None:
        content = (files("lit_transformer.serving") / "page" / file).read_text("utf-8")

        @app.get(f"/{path}", include_in_schema=False)
        async def page() -> Response:
            return Response(content, media_type=kind)

    for path, (file, kind) in PAGE.items():
        add_file(path, file, kind)
    for route in app.openapi()["paths"].values():
        for operation in route.values():
            operation["responses"].pop("422", None)  # what does not fit is a 400 here
    return app


FAULTS: dict[int | str, dict[str, Any]] = {
    400: {"description": "what is wrong with the request"},
    404: {"description": "no such model"},
    408: {"description": "the body did not arrive in time"},
    413: {"description": "the body is too large"},
    415: {"description": "the body is not JSON"},
    429: {"description": "the queue is full; try again after Retry-After seconds"},
    503: {"description": "shutting down, or not done in time"},
}


async def whole(engine: Engine, job: Job, events: "asyncio.Queue[Event]", answer: Answer, request: Request) -> Response:
    """The answer once all texts have ended; nobody decodes for a client that has hung up."""
    gone = asyncio.ensure_future(hung_up(request))
    try:
        while not answer.ended:
            coming = asyncio.ensure_future(events.get())
            await asyncio.wait({coming, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not coming.done():
                coming.cancel()
                return Response(status_code=499)  # nobody reads it
            event = coming.result()
            if event.error is not None:
                return fault(event.status, event.error)
            answer.add(event)
        return JSONResponse(answer.whole())
    finally:
        gone.cancel()
        engine.cancel(job)


async def streamed(
    engine: Engine, job: Job, events: "asyncio.Queue[Event]", answer: Answer, usage: bool
) -> AsyncIterator[str]:
    """The answer as server-sent events; a client that hangs up ends it, wherever it is."""
    try:
        for piece in answer.opening():
            yield data(piece)
        while not answer.ended:
            event = await events.get()
            if event.error is not None:
                yield data(problem(event.error, "server_error"))
                break
            yield data(answer.add(event))
        else:
            if usage:
                yield data(answer.usage_piece())
        yield "data: [DONE]\n\n"
    finally:
        engine.cancel(job)


async def hung_up(request: Request) -> None:
    """Waits until the client is gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def wanted(body: CompletionRequest, size: int) -> Want:
    """What the body asks for, of a model with ``size`` tokens.

    Raises:
        UserError: Values that do not fit together.
    """
    processors: list[generation.LogitsProcessor] = []
    if body.repetition_penalty is not None:
        processors.append(generation.RepetitionPenalty(body.repetition_penalty))
    if body.frequency_penalty:
        processors.append(generation.FrequencyPenalty(body.frequency_penalty))
    if body.presence_penalty:
        processors.append(generation.PresencePenalty(body.presence_penalty))
    if body.logit_bias:
        for token in body.logit_bias:
            if int(token) >= size:
                raise UserError(f"logit_bias: {token!r} is no token id; the vocabulary ends at {size - 1}")
        processors.append(generation.LogitBias({int(token): bias for token, bias in body.logit_bias.items()}))
    temperature = 1.0 if body.temperature is None else body.temperature
    top_p = None if body.top_p == 1 else body.top_p
    stop = [body.stop] if isinstance(body.stop, str) else body.stop or []
    return Want(
        max_new_tokens=16 if body.max_tokens is None else body.max_tokens,
        sampler=generation.sampler_of(temperature, body.top_k, top_p, body.min_p, processors),
        stop=stop,
        samples=body.n or 1,
        seed=int.from_bytes(os.urandom(4), "little") if body.seed is None else body.seed,
        log_probabilities=body.logprobs,
    )


def prompts_of(body: CompletionRequest) -> list[str | list[int]]:
    """The prompts, one or several.

    Raises:
        UserError: There is none.
    """
    prompt = body.prompt
    if isinstance(prompt, str):
        return [prompt]
    if not prompt:
        raise UserError("prompt: is an empty list")
    if isinstance(prompt[0], int):
        return [[token for token in prompt if isinstance(token, int)]]
    return [each for each in prompt if not isinstance(each, int)]


def fault(status: int, message: str) -> JSONResponse:
    """An error as an answer."""
    kind = "invalid_request_error" if status < 500 and status != 429 else "server_error"
    headers = {"retry-after": str(RETRY_SECONDS)} if status in (429, 503) else None
    return JSONResponse(problem(message, kind), status, headers)


def add_errors(app: FastAPI) -> None:
    """Every error is an answer in one form, without a word of what is inside."""

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = [str(part)[:50] for part in first["loc"] if part != "body"]
        if first["type"] == "json_invalid":
            place, said = [], f"the body is not JSON: {first['ctx']['error']}"
        elif first["type"] == "extra_forbidden":
            said = "unknown field"
        else:
            said = first["msg"]
        name = ".".join(place[:4])
        return JSONResponse(problem(f"{name}: {said}" if name else said, param=place[0] if place else None), 400)

    @app.exception_handler(UserError)
    async def mistaken(_: Request, error: UserError) -> JSONResponse:
        return fault(400, str(error))

    @app.exception_handler(Busy)
    async def busy(_: Request, error: Busy) -> JSONResponse:
        return fault(error.status, str(error))

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> JSONResponse:
        answer = fault(error.status_code, str(error.detail))
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> JSONResponse:
        return fault(500, "internal error")
