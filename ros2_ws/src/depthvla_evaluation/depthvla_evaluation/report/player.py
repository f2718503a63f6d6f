"""The episode's video on its page, with a strip of what happened when; a click on the strip or an arrow key seeks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape

from depthvla_evaluation.bags.episode import Episode
from depthvla_evaluation.report.figures import INK, MODE_COLOURS, ORANGE, RED, mode_spans
from depthvla_evaluation.report.page_parts import section

WIDTH = 1000  # units of the strip's drawing
MODE_TOP, MODE_HEIGHT, CHUNK_TOP, HEIGHT = 26, 18, 46, 74

SCRIPT = """
(() => {
  const video = document.getElementById("video"), strip = document.getElementById("strip");
  const cursor = document.getElementById("cursor"), clock = document.getElementById("clock");
  const {times, begin, end, width} = JSON.parse(document.getElementById("frames").textContent);
  const play = document.getElementById("play");
  video.controls = false;  // they would cover the joints
  const toggle = () => { if (video.paused) video.play(); else video.pause(); };
  const now = () => times[0] + video.currentTime;
  const seek = seconds => {
    video.currentTime = Math.max(0, Math.min(seconds, times[times.length - 1]) - times[0] + 0.001);
  };
  const show = () => {
    const x = (now() - begin) / (end - begin) * width;
    cursor.setAttribute("x1", x); cursor.setAttribute("x2", x);
    clock.textContent = now().toFixed(2) + " s";
    play.textContent = video.paused ? "\u25b6 play" : "\u275a\u275a pause";
  };
  const step = by => {
    video.pause();
    const here = times.findLastIndex(time => time <= now() + 0.0005);
    seek(times[Math.max(0, Math.min(times.length - 1, here + by))]);
  };
  const point = event => {
    const box = strip.getBoundingClientRect();
    seek(begin + (event.clientX - box.left) / box.width * (end - begin));
  };
  strip.addEventListener("pointerdown", event => { strip.setPointerCapture(event.pointerId); point(event); });
  strip.addEventListener("pointermove", event => { if (event.buttons) point(event); });
  play.addEventListener("click", toggle);
  video.addEventListener("click", toggle);
  document.getElementById("full").addEventListener("click", () => video.requestFullscreen());
  document.getElementById("back").addEventListener("click", () => step(-1));
  document.getElementById("forward").addEventListener("click", () => step(1));
  document.getElementById("rate").addEventListener("change", event => { video.playbackRate = +event.target.value; });
  document.addEventListener("click", event => {
    const button = event.target.closest("[data-seek]");
    if (button) { seek(+button.dataset.seek); video.scrollIntoView({block: "nearest"}); }
  });
  document.addEventListener("keydown", event => {
    const tag = event.target.tagName;
    if (event.ctrlKey || event.altKey || event.metaKey || tag === "SELECT" || tag === "INPUT") return;
    if (event.key === " " && (tag === "BUTTON" || tag === "SUMMARY" || tag === "A")) return;
    const action = {ArrowLeft: () => step(-1), ArrowRight: () => step(1), " ": toggle}[event.key];
    if (action) { event.preventDefault(); action(); }
  });
  const follow = () => { show(); requestAnimationFrame(follow); };
  follow();
})();
"""


def player(episode: Episode, video: str, times_s: Sequence[float]) -> str:
    """Card with the video file `video`, which lies beside the page; times_s: its frames, in seconds of the episode."""
    begin_s, end_s = times_s[0], max(times_s[-1], times_s[0] + 0.1)
    rates = "".join(
        f'<option value="{rate}"{" selected" if rate == 1 else ""}>{rate}x</option>'
        for rate in (0.1, 0.25, 0.5, 1, 2, 4, 8)
    )
    frames = {"times": [round(time, 4) for time in times_s], "begin": begin_s, "end": end_s, "width": WIDTH}
    return section(
        "Replay",
        "Click into the strip to go there. Arrow keys: from image to image; space bar: start and stop.",
        f'<video id="video" src="{escape(video)}" controls muted playsinline preload="auto"></video>'
        f"{_strip(episode, begin_s, end_s)}"
        f'<div class="controls">{_button("play", "&#9654; play")}{_button("back", "&#9664; image")}'
        f"{_button('forward', 'image &#9654;')}"
        f'<label>speed <select id="rate">{rates}</select></label>{_button("full", "full screen")}'
        '<output id="clock"></output></div>'
        f'<script type="application/json" id="frames">{json.dumps(frames)}</script>'
        f"<script>{SCRIPT}</script>",
    )


def seek_button(time_s: float, *, live: bool) -> str:
    """A time that, where there is a video, leads to it."""
    text = f"{time_s:.2f} s"
    return f'<button class="seek" type="button" data-seek="{time_s:.3f}">{text}</button>' if live else text


def _button(name: str, text: str) -> str:
    return f'<button id="{name}" type="button">{text}</button>'


def _strip(episode: Episode, begin_s: float, end_s: float) -> str:
    """Marks and interventions above, modes in the middle, chunks below."""

    def x(time_s: float) -> float:
        return round((min(max(time_s, begin_s), end_s) - begin_s) / (end_s - begin_s) * WIDTH, 2)

    parts = [
        f'<rect x="{x(begin)}" y="{MODE_TOP}" width="{x(end) - x(begin):.2f}" height="{MODE_HEIGHT}"'
        f' fill="{MODE_COLOURS[mode]}"><title>{mode.name} from {begin:.1f} to {end:.1f} s</title></rect>'
        for mode, begin, end in mode_spans(episode)
    ]
    parts += [
        _text(x((max(begin, begin_s) + min(end, end_s)) / 2), MODE_TOP + 13, mode.name, "middle")
        for mode, begin, end in mode_spans(episode)
        if x(end) - x(begin) > 12 * len(mode.name)
    ]
    parts += [
        f'<line x1="{x(time)}" x2="{x(time)}" y1="{CHUNK_TOP}" y2="{CHUNK_TOP + 8}" stroke="{INK}" stroke-width="1"/>'
        for time in episode.seconds(episode.chunks.received_ns)
    ]
    for mark in episode.notes.marks:
        time = x(episode.seconds(mark.time_ns))
        late = time > 0.8 * WIDTH
        parts.append(f'<line x1="{time}" x2="{time}" y1="4" y2="{MODE_TOP + MODE_HEIGHT}" stroke="{ORANGE}"/>')
        name = mark.substep.replace("_", " ")
        parts.append(_text(time + (-4 if late else 4), 14, name, "end" if late else "start"))
    for change in episode.mode_changes:
        if change.intervention:
            time = x(episode.seconds(change.stamp_ns))
            parts.append(
                f'<path d="M{time - 5} 18 h10 l-5 8 z" fill="{RED}"><title>a person took over</title></path>'
                f'<line x1="{time}" x2="{time}" y1="{MODE_TOP}" y2="{MODE_TOP + MODE_HEIGHT}" stroke="{RED}"/>'
            )
    parts += [
        _text(0, HEIGHT - 4, f"{begin_s:.1f} s", "start"),
        _text(WIDTH / 2, HEIGHT - 4, "ticks: chunks received", "middle"),
        _text(WIDTH, HEIGHT - 4, f"{end_s:.1f} s", "end"),
        f'<line id="cursor" x1="0" x2="0" y1="0" y2="{CHUNK_TOP + 12}" stroke="{INK}" stroke-width="2"/>',
    ]
    return f'<svg class="strip" id="strip" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(parts)}</svg>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.2f}" y="{y}" font-size="11" fill="{INK}" text-anchor="{anchor}">{escape(text)}</text>'
