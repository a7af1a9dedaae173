"""What stands before the application: requests that are too large, too slow, or not for us."""

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; "
        b"form-action 'none'; frame-ancestors 'none'",
    ),
]
"""On every answer: a page of ours loads from here alone, and no page of others may use what we say."""


def problem(message: str, kind: str = "invalid_request_error", param: str | None = None) -> dict[str, Any]:
    """An error as OpenAI's clients read it; what it repeats of a request may be no text that can be sent."""
    message = message.encode("utf-8", "replace").decode()
    param = None if param is None else param.encode("utf-8", "replace").decode()
    return {"error": {"message": message, "type": kind, "param": param, "code": None}}


class Guard:
    """Reads the whole body of a request, within limits, before the application sees it.

    A body must say that it is JSON: so that a page of another origin cannot send one without asking first. The host
    that is asked for must be one of ours: so that no name of others that leads here is believed.

    Args:
        app: The application.
        body_bytes: Most bytes of a body.
        body_seconds: Longest time for a body to arrive.
        hosts: Names that the server goes by; None: any.
    """

    def __init__(
        self,
        app: Application,
        body_bytes: int = 1 << 20,
        body_seconds: float = 20.0,
        hosts: frozenset[str] | None = None,
    ) -> None:
        self.app = app
        self.body_bytes = body_bytes
        self.body_seconds = body_seconds
        self.hosts = hosts

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *HEADERS]
            await send(message)

        if self.hosts is not None and host_of(headers.get(b"host", b"")) not in self.hosts:
            await refuse(answer, 421, "the request is for another host")
            return
        size = headers.get(b"content-length", b"")
        if size.isdigit() and int(size[:20]) > self.body_bytes:
            await refuse(answer, 413, f"the body has more than {self.body_bytes:,} bytes")
            return
        body = bytearray()
        more = True
        try:
            async with asyncio.timeout(self.body_seconds):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > self.body_bytes:
                        await refuse(answer, 413, f"the body has more than {self.body_bytes:,} bytes")
                        return
        except TimeoutError:
            await refuse(answer, 408, f"the body did not arrive within {self.body_seconds:g} seconds")
            return
        kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
        if body and kind != b"application/json":
            await refuse(answer, 415, "the body must be JSON: send the header Content-Type: application/json")
            return
        first = True

        async def replay() -> Message:
            nonlocal first
            if first:
                first = False
                return {"type": "http.request", "body": bytes(body), "more_body": False}
            return await receive()

        await self.app(scope, replay, answer)


def host_of(header: bytes) -> str:
    """The name in a Host header, without the port."""
    text = header.decode("latin-1").strip().lower()
    name, colon, port = text.rpartition(":")
    return name if colon and port.isdigit() else text


async def refuse(send: Send, status: int, message: str) -> None:
    """Answers with an error, and closes the connection: what is left of the body is not read."""
    body = json.dumps(problem(message)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, (b"connection", b"close")]})
    await send({"type": "http.response.body", "body": body})
