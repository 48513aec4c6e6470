"""One server process: the socket, the engine, the HTTP server, and how they end."""

import asyncio
import contextlib
import signal
import socket
from argparse import Namespace
from collections.abc import Callable, Iterator

import uvicorn
from fastapi import FastAPI

from server.app import build_app
from server.engine import (
    AsyncEngineArgs,
    create_server_socket,
    running_engine,
    watchdog_loop,
)
from server.errors import EngineFailed, StartError
from server.greeting import greeting

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ANY_HOST = {"", "0.0.0.0", "::"}


class Server(uvicorn.Server):
    """uvicorn's server, which says when it listens, and ends without raising the signal that
    stopped it again."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_DFL)


async def serve(args: Namespace, engine_args: AsyncEngineArgs) -> None:
    """Serve until a signal comes.

    On SIGTERM and SIGINT running requests have `--shutdown-timeout` seconds to finish. Raises
    `StartError` where the address is taken or vLLM refuses an option, `EngineFailed` where the
    engine does not start or dies.
    """
    with _bound_socket(args) as listener:
        async with running_engine(engine_args) as engine:
            app = build_app(engine, args)
            url = _url(args, listener)

            def say_ready() -> None:
                print(greeting(engine, url, bool(args.api_key)), flush=True)

            server = Server(_uvicorn_config(app, args), say_ready)
            # vLLM's error handlers stop the server when the engine has died.
            app.state.server = server
            watchdog = asyncio.create_task(watchdog_loop(server, engine.client))
            try:
                await server.serve(sockets=[listener])
            finally:
                watchdog.cancel()
            if engine.client.errored:
                raise EngineFailed("the engine died")


@contextlib.contextmanager
def _bound_socket(args: Namespace) -> Iterator[socket.socket]:
    """The address, taken before the engine starts: it should not start for nothing."""
    try:
        listener = create_server_socket((args.host, args.port), reuse_port=False)
    except (OSError, OverflowError) as error:
        raise StartError(f"cannot listen on {args.host} port {args.port}: {error}") from error
    with listener:
        yield listener


def _uvicorn_config(app: FastAPI, args: Namespace) -> uvicorn.Config:
    return uvicorn.Config(
        app,
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
