"""One server process: the socket, the engine, the HTTP server, and how they end."""

import asyncio
import contextlib
import os
import resource
import signal
import socket
from argparse import Namespace
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType

import uvicorn
from fastapi import FastAPI

from server.app import build_app
from server.connection import Connection
from server.engine import AsyncEngineArgs, Engine, create_server_socket, running_engine
from server.errors import EngineFailed, ExitStatus, StartError
from server.greeting import greeting
from server.keys import read_keys

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# How long a server goes on without its engine: health checks should see it.
_SECONDS_WITHOUT_ENGINE = 2.0
# uvicorn cancels requests and does not wait: how long these have to tell their clients.
_SECONDS_TO_SAY_SO = 2.0
_MAX_FILES = 65536
_ANY_HOST = {"", "0.0.0.0", "::"}


class Server(uvicorn.Server):
    """uvicorn's server, which says when it listens, and ends without raising the signal that
    stopped it again.

    A second signal does not wait: it ends the process, and that the engine (`server.child`).
    """

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        except OSError as error:
            # Two servers that start at once can bind the same address, but not listen at it.
            raise StartError(f"cannot listen: {error}", ExitStatus.ADDRESS_TAKEN) from error
        self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=_SECONDS_TO_SAY_SO)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            _let_signals_kill(loop)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        _let_signals_kill(asyncio.get_running_loop())
        print(
            f"Stopping: running requests have {self.config.timeout_graceful_shutdown} s to finish. "
            "Another signal ends them at once.",
            flush=True,
        )
        super().handle_exit(sig, frame)


async def serve(args: Namespace, engine_args: AsyncEngineArgs) -> None:
    """Serve until a signal comes.

    On SIGTERM and SIGINT running requests have `--shutdown-timeout` seconds to finish. Raises
    `StartError` where the address is taken or vLLM refuses an option, `EngineFailed` where the
    engine does not start or dies.
    """
    keys = read_keys(args, os.environ)
    with _bound_socket(args) as listener:
        async with running_engine(engine_args) as engine:
            app = build_app(engine, args, keys)
            url = _url(args, listener)

            def say_ready() -> None:
                print(greeting(engine, url, bool(keys)), flush=True)

            server = Server(_uvicorn_config(app, args), say_ready)
            # vLLM's error handlers stop this when the engine has died. Our server ends a little
            # later, see _end_with_engine.
            app.state.server = Namespace(should_exit=False)
            watchdog = asyncio.create_task(_end_with_engine(server, engine))
            try:
                await server.serve(sockets=[listener])
            finally:
                watchdog.cancel()
            if engine.client.errored:
                raise EngineFailed("the engine died")


async def _end_with_engine(server: Server, engine: Engine) -> None:
    """Watch the engine, and end the server where it has died."""
    while not engine.client.errored:  # noqa: ASYNC110  # vLLM has no event for it
        await asyncio.sleep(0.5)
    await asyncio.sleep(_SECONDS_WITHOUT_ENGINE)
    server.should_exit = True


def _let_signals_kill(loop: asyncio.AbstractEventLoop) -> None:
    for number in _SIGNALS:
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def _bound_socket(args: Namespace) -> Iterator[socket.socket]:
    """The address, taken before the engine starts: it should not start for nothing."""
    _allow_many_connections()
    try:
        listener = create_server_socket((args.host, args.port), reuse_port=False)
    except (OSError, OverflowError) as error:
        raise StartError(
            f"cannot listen on {args.host} port {args.port}: {error}", ExitStatus.ADDRESS_TAKEN
        ) from error
    with listener:
        # Inherited by its connections. Without it the kernel keeps a streamed token back until the
        # client has acknowledged the one before it, which is put off for 40 ms. asyncio sees to it
        # for the sockets that it opens itself, uvloop does not for one that it is given.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        yield listener


def _allow_many_connections() -> None:
    """Each takes a file descriptor, of which the usual 1024 are few."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_FILES if most == resource.RLIM_INFINITY else min(most, _MAX_FILES)
    if now != resource.RLIM_INFINITY and now < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def _uvicorn_config(app: FastAPI, args: Namespace) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=partial(Connection, receive_seconds=args.receive_timeout),  # type: ignore[arg-type]
        log_level=args.uvicorn_log_level,
        access_log=not args.disable_uvicorn_access_log,
        timeout_graceful_shutdown=args.shutdown_timeout,
        ssl_keyfile=args.ssl_keyfile,
        ssl_certfile=args.ssl_certfile,
        ssl_ca_certs=args.ssl_ca_certs,
        ssl_cert_reqs=args.ssl_cert_reqs,
        ssl_ciphers=args.ssl_ciphers or "TLSv1",
    )


def _url(args: Namespace, listener: socket.socket) -> str:
    host = "localhost" if args.host in _ANY_HOST else args.host
    scheme = "https" if args.ssl_certfile else "http"
    port = listener.getsockname()[1]
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{args.root_path or ''}"
