// Draws the figures that lie in the page as JSON, and follows the page between light and dark.
(function () {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const templates = JSON.parse(document.getElementById("templates").textContent);
  const template = () => templates[dark.matches ? "dark" : "light"];
  const config = { responsive: true, displaylogo: false, displayModeBar: false, showSendToCloud: false };
  const drawn = [];
  for (const place of document.querySelectorAll(".plot")) {
    const figure = JSON.parse(document.getElementById(place.dataset.figure).textContent);
    figure.layout.template = template();
    drawn.push(place);
    Plotly.newPlot(place, figure.data, figure.layout, config).then(() => {
      if (figure.frames && figure.frames.length) Plotly.addFrames(place, figure.frames);
    });
  }
  dark.addEventListener("change", () => drawn.forEach((place) => Plotly.relayout(place, { template: template() })));
})();
