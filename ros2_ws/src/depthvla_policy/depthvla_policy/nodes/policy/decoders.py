"""Camera images are decoded on threads of their own, the next chunk's beside the running inference.

Knows no ROS: what decoding is, and what a payload, is handed in.
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

THREADS = 3
KEPT = 2  # images of a camera: the newest is not always the one nearest to the reference frame

Result = TypeVar("Result")


class UndecodableError(ValueError):
    """The image of `camera` cannot be decoded."""

    def __init__(self, camera: str, why: str) -> None:
        super().__init__(why)
        self.camera = camera


class Decoders(Generic[Result]):
    """Every payload is decoded once. One thread may `begin` while another one asks for `results`."""

    def __init__(self, decode: Callable[[Any], Result]) -> None:
        """OpenCV lets go of the interpreter while it decodes and resizes, so images are decoded side by side."""
        self._decode = decode
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="decode")
        self._begun: dict[str, deque[tuple[Any, Future[Result]]]] = defaultdict(lambda: deque(maxlen=KEPT))
        self._lock = threading.Lock()

    def begin(self, camera: str, payload: Any) -> None:
        """Decode an image that will probably be asked for. What decoding raises, asking raises."""
        future = self._pool.submit(self._decode, payload)
        with self._lock:
            self._begun[camera].append((payload, future))

    def results(self, payloads: Mapping[str, Any]) -> dict[str, Result]:
        """Camera -> what decoding its payload gives; begun here where it was not before.

        Raises:
            UndecodableError: decoding a payload raised ValueError.
        """
        futures = {camera: self._future(camera, payload) for camera, payload in payloads.items()}
        return {camera: _result(camera, future) for camera, future in futures.items()}

    def close(self) -> None:
        self._pool.shutdown(wait=False)

    def _future(self, camera: str, payload: Any) -> Future[Result]:
        with self._lock:
            begun = [future for known, future in self._begun[camera] if known is payload]
        return begun[0] if begun else self._pool.submit(self._decode, payload)


def _result(camera: str, future: Future[Result]) -> Result:
    try:
        return future.result()
    except ValueError as error:
        raise UndecodableError(camera, str(error)) from error
