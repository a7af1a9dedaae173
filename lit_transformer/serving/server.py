"""Listening: the application behind its guard, on a socket of this machine."""

import asyncio
import ipaddress
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn

from lit_transformer.errors import EnvironmentFault, UserError
from lit_transformer.generation.model import Model
from lit_transformer.serving.app import application
from lit_transformer.serving.engine import Engine, Limits
from lit_transformer.serving.guard import Guard

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


@dataclass(frozen=True)
class Place:
    """Where and how the server listens.

    Args:
        host: An address of this machine.
        port: A port; 0 takes a free one.
        remote: Whether others than this machine may come.
        names: Further names that the server goes by.
        connections: Most connections at the same time.
        body_bytes: Most bytes of a request.
        body_seconds: Longest time for a request to arrive.
        grace_seconds: Longest time that answers under way get when the server is told to stop.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    remote: bool = False
    names: tuple[str, ...] = ()
    connections: int = 512
    body_bytes: int = 1 << 20
    body_seconds: float = 20.0
    grace_seconds: int = 10


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listening(place: Place) -> socket.socket:
    """A socket that is bound and does not listen yet.

    Raises:
        UserError: The address is open to others, and nobody said that it should be; or it is none.
        EnvironmentFault: It is taken, or forbidden.
    """
    if not place.remote and not is_loopback(place.host):
        raise UserError(
            f"--host {place.host}: others could reach this server, which asks nobody for a password; give "
            "--allow_remote too if that is wanted"
        )
    try:
        if not 0 <= place.port < 2**16:
            raise OverflowError
        family, kind, protocol, _, address = socket.getaddrinfo(
            place.host, place.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, OverflowError, UnicodeError):
        raise UserError(f"--host {place.host}, --port {place.port}: no address of this machine") from None
    found = socket.socket(family, kind, protocol)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
    except OSError as error:
        found.close()
        raise EnvironmentFault(f"{place.host}:{place.port}: {error.strerror}; choose another --port") from None
    return found


def address_of(found: socket.socket) -> str:
    """The address as a browser takes it."""
    host, port = found.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def server_of(model: Model, name: str, limits: Limits, place: Place) -> "Server":
    """The server of a model, not running yet."""
    hosts = None if place.remote else LOOPBACK_NAMES | {place.host} | set(place.names)
    app = Guard(application(Engine(model, limits), name), place.body_bytes, place.body_seconds, hosts)
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=place.connections,
        backlog=place.connections,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=place.grace_seconds,
    )
    return Server(config)


class Server(uvicorn.Server):
    """A server for which being told to stop is no fault: uvicorn would send itself the signal again afterwards."""

    ready: Callable[[], None] | None = None
    """Called once it listens."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to listen."""
        await super().startup(sockets)
        if self.started and self.ready is not None:
            self.ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Turns SIGINT and SIGTERM into a graceful end."""
        with super().capture_signals():
            yield
            self._captured_signals: list[int] = []


@contextmanager
def serving(model: Model, name: str, limits: Limits, place: Place) -> Iterator[str]:
    """The server in a thread of this process, as long as the context lasts; gives its address.

    Args:
        model: The model.
        name: What it is called.
        limits: What the engine takes on.
        place: Where it listens.
    """
    found = listening(place)
    server = server_of(model, name, limits, place)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([found])), name="lit-transformer server")
    thread.start()
    try:
        while not server.started and thread.is_alive():
            thread.join(0.01)
        yield address_of(found)
    finally:
        server.should_exit = True
        thread.join()
        found.close()
