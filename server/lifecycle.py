"""One server process: the socket, the engine, the HTTP server, and how they end."""

import asyncio
import contextlib
import math
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
from server.engine.engine import Engine, running_engine
from server.errors import EngineFailed, ExitStatus, StartError
from server.greeting import greeting
from server.middleware.auth import read_keys
from server.middleware.connection import Connection
from server.vllm_api import AsyncEngineArgs, create_server_socket

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# How long a server goes on without its engine, so that health checks see it.
_SECONDS_WITHOUT_ENGINE = 2.0
# uvicorn cancels requests and does not wait for them: how long they have to answer their clients.
_SECONDS_TO_ANSWER = 2.0
# After their connections are closed.
_SECONDS_TO_CLOSE = 0.5
_MAX_FILES = 65536
_FOREVER = 1 << 30
_ANY_HOST = {"", "0.0.0.0", "::"}


class Server(uvicorn.Server):
    """uvicorn's server, which calls `on_ready` when it listens, and does not raise the signal that
    stopped it again when it ends.

    A second signal ends the process at once, and with it the engine's processes
    (`engine.child_process`).
    """

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        except OSError as error:
            # Two servers that start at once can bind the same address, but not listen on it.
            raise StartError(f"cannot listen: {error}", ExitStatus.ADDRESS_TAKEN) from error
        self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=_SECONDS_TO_ANSWER)
        if unread := list(self.server_state.tasks):
            # Their clients do not read: what waits to be sent to them never will be.
            for connection in list(self.server_state.connections):
                connection.transport.abort()
            await asyncio.wait(unread, timeout=_SECONDS_TO_CLOSE)

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
    """Serve until SIGTERM or SIGINT; then running requests have `--shutdown-timeout` seconds.

    Raises `StartError` where the address is taken or vLLM refuses an option, `EngineFailed` where
    the engine does not start or dies.
    """
    keys = read_keys(args, os.environ)
    with _bound_socket(args) as listener:
        async with running_engine(engine_args, args.alias, args.grammar_timeout) as engine:
            app = build_app(engine, args, keys)
            url = _url(args, listener)

            def print_greeting() -> None:
                print(greeting(engine, url, bool(keys)), flush=True)

            server = Server(_uvicorn_config(app, args), print_greeting)
            # vLLM's error handlers set this when the engine has died. Our server ends a little
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
    """Watch the engine, and end the server when the engine has died."""
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
    """The server's socket, bound before the engine starts: a taken address is known at once."""
    _raise_file_limit()
    try:
        listener = create_server_socket((args.host, args.port), reuse_port=False)
    except (OSError, OverflowError) as error:
        raise StartError(
            f"cannot listen on {args.host} port {args.port}: {error}", ExitStatus.ADDRESS_TAKEN
        ) from error
    with listener:
        # Connections inherit it. Without it Nagle's algorithm keeps a streamed token back until the
        # client has acknowledged the one before, which clients delay by 40 ms. asyncio sets it on
        # sockets that it opens itself, uvloop does not on one that it is given.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        yield listener


def _raise_file_limit() -> None:
    """Each connection takes a file descriptor, and the usual limit of 1024 is low."""
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
        # uvicorn knows no connection that stays open without an end.
        timeout_keep_alive=math.ceil(args.keep_alive_timeout) or _FOREVER,
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
