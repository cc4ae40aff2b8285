"""Serve the API with uvicorn."""

import socket

import uvicorn
from fastapi import FastAPI

from app.api.deadlines import DeadlineProtocol
from app.settings import Settings

GRACE_S = 20


class _Server(uvicorn.Server):
    """A server that lets streams end when it is told to stop, since it waits for open answers."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.state.notices.close()
        await super().shutdown(sockets)


def make_server(
    app: FastAPI, settings: Settings, *, host: str = "127.0.0.1", port: int = 8000
) -> uvicorn.Server:
    """Return a server of `app` that has not been started."""
    configuration = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=DeadlineProtocol,
        ws="none",
        # Of its own accord uvicorn believes whoever calls from this machine.
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=[str(network) for network in settings.trusted_proxies],
        timeout_keep_alive=settings.head_timeout_s,
        log_config=None,  # its records go where ours go, as JSON
        access_log=False,  # our middleware logs requests, with their ids
        timeout_graceful_shutdown=GRACE_S,
        server_header=False,
    )
    return _Server(configuration, app)
