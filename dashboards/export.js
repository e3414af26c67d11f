// Draws a figure when it comes near to what is seen, as hundreds at once would take long; all of them before printing.
(function () {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const templates = JSON.parse(document.getElementById("templates").textContent);
  const template = () => templates[dark.matches ? "dark" : "light"];
  const config = { responsive: true, displaylogo: false, showSendToCloud: false };
  const drawn = new Set();
  function draw(place) {
    if (drawn.has(place)) return;
    drawn.add(place);
    const figure = JSON.parse(document.getElementById(place.dataset.figure).textContent);
    figure.layout.template = template();
    Plotly.newPlot(place, figure.data, figure.layout, config).then(() => {
      if (figure.frames && figure.frames.length) Plotly.addFrames(place, figure.frames);
    });
  }
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) draw(entry.target);
  }, { rootMargin: "600px" });
  document.querySelectorAll(".plot").forEach((place) => seen.observe(place));
  window.addEventListener("beforeprint", () => document.querySelectorAll(".plot").forEach(draw));
  dark.addEventListener("change", () => drawn.forEach((place) => Plotly.relayout(place, { template: template() })));
})();
