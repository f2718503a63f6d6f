"""A recorded episode in a browser: `depthvla view BAG`."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from depthvla_evaluation.bags.bag import Bag
from depthvla_evaluation.viewer import server as web
from depthvla_evaluation.viewer.bag_snapshots import BagSnapshots
from depthvla_evaluation.viewer.description import description
from depthvla_evaluation.viewer.panel import Panel
from depthvla_evaluation.viewer.player import Controls, Playback
from depthvla_evaluation.viewer.scene import Scene

PERIOD_S = 1 / 15


@dataclass(frozen=True)
class ViewerConfig:
    bag: tyro.conf.Positional[Path]
    """Folder of the bag."""
    port: int = 8080
    """Port of the page; the next free one where it is taken."""
    host: str = "127.0.0.1"
    """0.0.0.0 lets every machine of the network look."""
    start: float = 0.0
    """Where to begin [s]."""
    paused: bool = False
    """Begin with the time standing still."""
    depth_range: tuple[float, float] = (0.1, 2.0)
    """Distances of the depth pictures' colours [m]."""


def main() -> int:
    config = tyro.cli(ViewerConfig, description=__doc__)
    try:
        with Bag(config.bag) as bag:
            snapshots = BagSnapshots(bag)
            described = description(bag, snapshots.robot)
            remarks = [*bag.remarks, *described.remarks]
        server = web.start(config.host, config.port)
    except (OSError, ValueError, ImportError) as error:
        print(f"viewer: {error}", file=sys.stderr)
        return 1
    for remark in remarks:
        print(f"viewer: {remark}", file=sys.stderr)
    playback = Playback(snapshots.duration_s, playing=not config.paused)
    playback.seek(config.start)
    controls = Controls(server, playback)
    scene = Scene(server, snapshots.robot, described.urdf, config.depth_range)
    panel = Panel(server, snapshots.robot, scene, config.depth_range)
    print(f"{config.bag}: {snapshots.duration_s:.1f} s, {web.url(server)}; Ctrl-C ends it", flush=True)
    try:
        while True:
            controls.advance(PERIOD_S)
            snapshot = snapshots.snapshot(playback.position_s)
            scene.show(snapshot, described.kinematics)
            panel.show(snapshot)
            time.sleep(PERIOD_S)
    except KeyboardInterrupt:
        return 0
    finally:
        server.stop()


if __name__ == "__main__":
    sys.exit(main())
