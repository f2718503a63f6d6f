"""The episode's video on its page, with a strip of what happened when; a click on the strip or an arrow key seeks."""

from __future__ import annotations

from collections.abc import Sequence

from depthvla_evaluation.bags.episode import Episode
from depthvla_evaluation.colours import MODE_COLOURS
from depthvla_evaluation.report.figures import mode_spans

WIDTH = 1000  # units of the strip's drawing


def player(episode: Episode, video: str, times_s: Sequence[float]) -> dict:
    """What `player.html.jinja` draws. video: a file beside the page; times_s: its frames, in seconds of the episode."""
    begin_s, end_s = times_s[0], max(times_s[-1], times_s[0] + 0.1)

    def x(time_s: float) -> float:
        return round((min(max(time_s, begin_s), end_s) - begin_s) / (end_s - begin_s) * WIDTH, 2)

    return {
        "video": video,
        "times": [round(time_s, 4) for time_s in times_s],
        "begin": begin_s,
        "end": end_s,
        "width": WIDTH,
        "spans": [
            {
                "mode": mode.name,
                "colour": MODE_COLOURS[mode],
                "x": x(begin),
                "width": round(x(end) - x(begin), 2),
                "begin_s": begin,
                "end_s": end,
            }
            for mode, begin, end in mode_spans(episode)
        ],
        "chunks": [x(time_s) for time_s in episode.seconds(episode.chunks.received_ns)],
        "marks": [(x(episode.seconds(m.time_ns)), m.substep.replace("_", " ")) for m in episode.notes.marks],
        "interventions": [x(episode.seconds(c.stamp_ns)) for c in episode.mode_changes if c.intervention],
    }
