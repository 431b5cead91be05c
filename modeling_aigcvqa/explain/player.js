// Shows the panels of an overlay one below or beside the other, each as large as the page allows, with the controls
// outside of the picture. Without JavaScript the overlay itself is shown.
(() => {
  function start(player) {
    player.dataset.started = "1";
    const video = player.querySelector("video");
    const [button, slider, output] = ["button", "input", "output"].map((name) => player.querySelector(name));
    const canvases = [...player.querySelectorAll("canvas")];
    const frames = Number(player.dataset.frames), rate = Number(player.dataset.rate);
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    let dragged = false;
    video.controls = false;
    const frame = () => Math.min(Math.floor(video.currentTime * rate + 1e-3), frames - 1);
    function draw() {
      for (const canvas of canvases) {
        const [x, y, w, h] = canvas.dataset.part.split(" ").map(Number);
        canvas.getContext("2d").drawImage(video, x, y, w, h, 0, 0, canvas.width, canvas.height);
      }
      if (!dragged) slider.value = frame();
      const first = Number(player.dataset.fps) ? `${(video.currentTime).toFixed(2)} s` : `frame ${frame()}`;
      output.textContent = first;
      button.textContent = video.paused ? "Play" : "Pause";
    }
    function loop() {
      if (!player.isConnected) return video.pause();
      if (video.readyState >= 2) draw();
      requestAnimationFrame(loop);
    }
    button.addEventListener("click", () => (video.paused ? video.play() : video.pause()));
    slider.addEventListener("input", () => {
      dragged = true;
      video.pause();
      video.currentTime = (Number(slider.value) + 0.5) / rate;
    });
    video.addEventListener("seeked", () => { dragged = false; });
    if (!still) video.play().catch(() => {});
    loop();
  }
  const startAll = () => document.querySelectorAll(".aigcvqa-player:not([data-started])").forEach(start);
  new MutationObserver(startAll).observe(document.documentElement, { childList: true, subtree: true });
  startAll();
})();
