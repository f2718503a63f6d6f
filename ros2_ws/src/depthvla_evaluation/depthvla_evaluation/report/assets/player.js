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
