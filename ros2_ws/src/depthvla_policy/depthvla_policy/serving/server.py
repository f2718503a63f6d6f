"""The websocket side, after openpi's src/openpi/serving/websocket_policy_server.py.

Metadata at once, then one answer to each observation; text instead of bytes is an error. GET /healthz says that the
server lives. Clients are served in turn on one worker thread, so the network never waits for the policy.
"""

from __future__ import annotations

import asyncio
import http
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from websockets.asyncio.server import Request, Response, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.protocol import State

from depthvla_policy.serving import protocol
from depthvla_policy.serving.service import Service

HEALTH = "/healthz"
MAX_ERROR_CHARACTERS = 2000
CLOSE_TIMEOUT_S = 2.0  # for a client that does not answer when the server ends

log = logging.getLogger("depthvla_policy.serving")


class PolicyServer:
    """Serves until it is told to stop. One that has run cannot run again."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._worker = ThreadPoolExecutor(1, "inference")
        self._inference = asyncio.Lock()

    async def run(self, host: str, port: int, stop: asyncio.Event, started: Callable[[int], None]) -> None:
        """Serve until `stop` is set; an inference that runs is finished first. `started` is told the port.

        port: 0 takes a free one.

        Raises:
            OSError: the address cannot be listened on.
        """
        # Whoever connects and says nothing (port scans, health checks of load balancers) would be a traceback.
        logging.getLogger("websockets").setLevel(logging.CRITICAL)
        limits = {"max_size": protocol.MAX_MESSAGE_BYTES, "max_queue": 1, "close_timeout": CLOSE_TIMEOUT_S}
        with self._worker:
            async with serve(self._talk, host, port, compression=None, process_request=_health, **limits) as server:
                started(server.sockets[0].getsockname()[1])
                await stop.wait()

    async def _talk(self, connection: ServerConnection) -> None:
        client = connection.remote_address
        log.info("%s connected", client)
        try:
            await connection.send(protocol.pack(self._service.metadata))
            await self._answer_all(connection, client)
            log.info("%s gone", client)
        except ConnectionClosed as error:
            log.info("%s gone: %s", client, error)

    async def _answer_all(self, connection: ServerConnection, client: object) -> None:
        previous_s = None
        async for request in connection:
            begin = time.perf_counter()
            try:
                answer = await self._answer(connection, request)
            except ValueError as error:
                log.warning("%s refused: %s", client, error)
                await connection.send(str(error)[:MAX_ERROR_CHARACTERS])
                continue
            except Exception as error:
                log.exception("%s: no answer", client)
                await connection.send(f"{type(error).__name__}: {error}"[:MAX_ERROR_CHARACTERS])
                await connection.close(CloseCode.INTERNAL_ERROR, "the message before says why")
                return
            if answer is None:
                return
            if previous_s is not None:
                answer["server_timing"]["prev_total_ms"] = previous_s * 1e3
            await connection.send(protocol.pack(answer))
            previous_s = time.perf_counter() - begin

    async def _answer(self, connection: ServerConnection, request: bytes | str) -> dict[str, object] | None:
        """None where the client has gone before its turn came."""
        if isinstance(request, str):
            raise ValueError("the message is text; an observation must be bytes: msgpack with numpy arrays")
        async with self._inference:
            if connection.state is not State.OPEN:
                return None
            return await asyncio.get_running_loop().run_in_executor(self._worker, self._service.answer, request)


def _health(connection: ServerConnection, request: Request) -> Response | None:
    return connection.respond(http.HTTPStatus.OK, "OK\n") if request.path == HEALTH else None
