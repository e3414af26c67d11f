// The exam viewer: panels zoom together, and window and level act on the pictures, by mouse with shift or by sliders.
// What is seen stands in the address, which is replaced and not added to: going back leaves the exam, not the zoom.
(function () {
  "use strict";
  const FILTER = "siamray-window";
  const MOVED = "_dashprivate_pushstate";
  const LIMITS = { window: [1, 200, 100], level: [0, 100, 50] };
  const gray = { window: 100, level: 50 };
  // Columns from, to, rows from, to in pixels of the pictures; null = all of them.
  let zoom = null;

  function transfer() {
    let holder = document.getElementById(FILTER + "-holder");
    if (!holder) {
      holder = document.createElementNS("http://www.w3.org/2000/svg", "svg");
      holder.id = FILTER + "-holder";
      holder.setAttribute("aria-hidden", "true");
      holder.setAttribute("width", "0");
      holder.setAttribute("height", "0");
      holder.style.position = "absolute";
      holder.innerHTML =
        '<filter id="' + FILTER + '" color-interpolation-filters="sRGB"><feComponentTransfer>' +
        '<feFuncR type="linear"/><feFuncG type="linear"/><feFuncB type="linear"/></feComponentTransfer></filter>';
      document.body.appendChild(holder);
    }
    return holder.querySelectorAll("feFuncR, feFuncG, feFuncB");
  }

  // Gray values from level - window / 2 to level + window / 2 fill the range from black to white.
  function show() {
    const width = gray.window / 100, middle = gray.level / 100;
    transfer().forEach(function (part) {
      part.setAttribute("slope", String(1 / width));
      part.setAttribute("intercept", String(-(middle - width / 2) / width));
    });
    for (const name of ["window", "level"]) {
      const slider = document.getElementById("gray-" + name);
      if (slider && Number(slider.value) !== gray[name]) slider.value = String(Math.round(gray[name]));
    }
  }

  function limited(name, value) {
    const [low, high, usual] = LIMITS[name];
    return Number.isFinite(value) ? Math.min(high, Math.max(low, value)) : usual;
  }

  function set(name, value) {
    gray[name] = limited(name, value);
    show();
    remember();
  }

  // --- The address ---
  const isViewer = () => /\/exams$/.test(window.location.pathname);
  const chosen = () => new URLSearchParams(window.location.search);
  let exam = chosen().get("exam");

  function read() {
    const words = chosen();
    for (const name of ["window", "level"]) {
      gray[name] = limited(name, words.has(name) ? parseFloat(words.get(name)) : NaN);
    }
    const ends = (words.get("zoom") || "").split(",").map(Number);
    zoom = ends.length === 4 && ends.every(Number.isFinite) && ends[0] < ends[1] && ends[2] < ends[3] ? ends : null;
    exam = words.get("exam");
  }

  function write() {
    if (!isViewer()) return;
    const words = chosen(), before = words.toString();
    const put = (name, value) => (value === null ? words.delete(name) : words.set(name, value));
    for (const name of ["window", "level"]) {
      const value = Math.round(gray[name]);
      put(name, value === LIMITS[name][2] ? null : String(value));
    }
    put("zoom", zoom && zoom.map((end) => Math.round(end)).join(","));
    if (words.toString() === before) return;
    const query = words.toString();
    window.history.replaceState(window.history.state, "", window.location.pathname + (query ? "?" + query : ""));
    // The page's own controls write the whole address, so they have to know this one.
    own = true;
    window.dispatchEvent(new CustomEvent(MOVED));
    own = false;
  }

  let own = false, waiting = 0;
  function remember() {
    window.clearTimeout(waiting);
    waiting = window.setTimeout(write, 200);
  }

  // A link or a choice leads on: window and level stay, and the zoom while it is the same exam.
  window.addEventListener(MOVED, function () {
    if (own || !isViewer()) return;
    const next = chosen().get("exam");
    if (next !== exam) zoom = null;
    exam = next;
    remember();
  });
  window.addEventListener("popstate", function () {
    if (!isViewer()) return;
    read();
    show();
    panels().forEach(place);
  });

  document.addEventListener("input", function (event) {
    if (event.target.id === "gray-window") set("window", Number(event.target.value));
    if (event.target.id === "gray-level") set("level", Number(event.target.value));
  });
  document.addEventListener("click", function (event) {
    if (event.target.id !== "gray-reset") return;
    gray.window = LIMITS.window[2];
    gray.level = LIMITS.level[2];
    show();
    remember();
  });

  let from = null;
  document.addEventListener("pointerdown", function (event) {
    if (!event.shiftKey || !event.target.closest || !event.target.closest(".viewer")) return;
    from = { x: event.clientX, y: event.clientY, window: gray.window, level: gray.level };
    event.preventDefault();
    event.stopPropagation();
  }, true);
  document.addEventListener("mousedown", function (event) {
    if (from) { event.preventDefault(); event.stopPropagation(); }
  }, true);
  document.addEventListener("pointermove", function (event) {
    if (!from) return;
    set("window", from.window + (event.clientX - from.x) / 2);
    set("level", from.level - (event.clientY - from.y) / 4);
  }, true);
  document.addEventListener("pointerup", function () { from = null; }, true);

  // --- The panels ---
  const panels = () => Array.from(document.querySelectorAll(".viewer .js-plotly-plot"));
  let following = 0;

  function whole(plot) {
    const picture = plot._fullLayout.images[0];
    return [0, picture.sizex, 0, picture.sizey];
  }

  function seen(plot) {
    const [left, right] = plot._fullLayout.xaxis.range, [bottom, top] = plot._fullLayout.yaxis.range;
    return [left, right, top, bottom];
  }

  const near = (some, others) => some.every((end, i) => Math.abs(end - others[i]) < 0.6);

  // Shows the part of a panel that the others show.
  function place(plot) {
    if (!plot._fullLayout || !plot._fullLayout.images.length) return;
    const [left, right, top, bottom] = zoom || whole(plot);
    if (near([left, right, top, bottom], seen(plot))) return;
    following += 1;
    window.Plotly.relayout(plot, { "xaxis.range": [left, right], "yaxis.range": [bottom, top] })
      .finally(() => { following -= 1; });
  }

  window.addEventListener("siamray:plot", function (event) {
    const plot = event.detail;
    if (!plot.closest(".viewer")) return;
    show();
    place(plot);
    // Drawn anew, by another overlay or by dark and light, a panel shows all of its picture.
    plot.on("plotly_react", () => { if (plot.closest(".viewer")) place(plot); });
    plot.on("plotly_relayout", function (change) {
      if (following || !plot.closest(".viewer")) return;
      const names = Object.keys(change);
      if (!names.some((name) => /^[xy]axis\.(range|autorange)/.test(name))) return;
      const all = names.some((name) => /autorange/.test(name)) || near(seen(plot), whole(plot));
      zoom = all ? null : seen(plot);
      panels().forEach(place);
      remember();
    });
  });

  read();
})();
