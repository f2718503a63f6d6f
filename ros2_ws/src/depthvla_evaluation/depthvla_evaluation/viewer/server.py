"""The web server that shows a scene: viser, imported where it is needed because that takes seconds."""

from __future__ import annotations

import contextlib
import io
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from viser import ViserServer

TITLE = "DepthVLA"


def start(host: str, port: int) -> ViserServer:
    """A running server; `url` tells its address. A port that is taken is passed over for the next free one.

    Raises:
        ImportError: viser is not installed.
    """
    try:
        import viser
    except ImportError as error:
        raise ImportError(f"the viewer needs the package viser (requirements.txt has its version): {error}") from error
    # A browser opens connections that it then does not use; each would be a traceback.
    logging.getLogger("websockets").setLevel(logging.CRITICAL)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its address in a box, whatever `verbose` says
        server = viser.ViserServer(host=host, port=port, label=TITLE, verbose=False)
    server.gui.configure_theme(dark_mode=True, control_width="large", show_share_button=False)
    server.gui.main_panel.dock_right()
    return server


def url(server: ViserServer) -> str:
    host = server.get_host()
    return f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{server.get_port()}"
