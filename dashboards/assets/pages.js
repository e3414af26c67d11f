// What the pages do in the browser by themselves: light and dark, titles, links of tables and points, live tables.
(function () {
  "use strict";
  const root = document.documentElement;
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const STORED = "siamray-theme";

  function stored() {
    try { return window.localStorage.getItem(STORED); } catch (error) { return null; }
  }

  function isDark() {
    const chosen = stored();
    return chosen ? chosen === "dark" : system.matches;
  }

  function apply() {
    root.dataset.theme = isDark() ? "dark" : "light";
  }

  apply();
  system.addEventListener("change", () => {
    apply();
    if (window.dash_clientside && window.dash_clientside.set_props) {
      window.dash_clientside.set_props("dark", { data: isDark() });
    }
  });

  // As dcc.Link does: the page changes without a reload.
  function go(url) {
    window.history.pushState({}, "", url);
    window.dispatchEvent(new CustomEvent("_dashprivate_pushstate"));
    window.scrollTo(0, 0);
  }

  function trialUrl(experiment, trial) {
    return "/experiment/" + encodeURIComponent(experiment) + "/trial/" + encodeURIComponent(trial);
  }

  function shownExperiment() {
    const parts = window.location.pathname.split("/");
    return parts[1] === "experiment" && parts[2] ? decodeURIComponent(parts[2]) : null;
  }

  window.dash_clientside = Object.assign({}, window.dash_clientside, {
    siamray: {
      theme: function (clicks) {
        if (clicks) {
          const next = isDark() ? "light" : "dark";
          try { window.localStorage.setItem(STORED, next); } catch (error) { root.dataset.theme = next; }
          apply();
        }
        return [root.dataset.theme === "dark", root.dataset.theme === "dark" ? "Light" : "Dark"];
      },
      title: function (title) {
        if (title) document.title = title;
        return window.dash_clientside.no_update;
      },
      // New trials come into the table without a reload, and without losing its place.
      refresh: async function (stamp) {
        if (stamp && window.dash_ag_grid && document.getElementById("trials")) {
          const api = await window.dash_ag_grid.getApiAsync("trials");
          if (api && api.refreshInfiniteCache) api.refreshInfiniteCache();
        }
        return window.dash_clientside.no_update;
      },
    },
  });

  const components = (window.dashAgGridComponentFunctions = window.dashAgGridComponentFunctions || {});
  components.TrialLink = function (props) {
    if (!props.value) return React.createElement("span", null, "loading ...");
    const url = trialUrl(props.experiment, props.value);
    const open = function (event) {
      if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
      event.preventDefault();
      go(url);
    };
    return React.createElement("a", { href: url, onClick: open }, String(props.value));
  };

  const functions = (window.dashAgGridFunctions = window.dashAgGridFunctions || {});
  functions.shortNumber = function (value) {
    if (value === null || value === undefined) return "";
    const number = Number(value);
    const whole = Number.isInteger(number) || Math.abs(number) >= 1000;
    return (whole ? String(Math.round(number)) : number.toPrecision(4)).replace("-", "\u2212");
  };

  // A click on a point that stands for a trial opens it.
  function listen(plot) {
    if (plot.dataset.listened || !plot.on) return;
    plot.dataset.listened = "1";
    plot.on("plotly_click", function (event) {
      const trial = event.points && event.points[0] && event.points[0].customdata;
      const experiment = shownExperiment();
      if (typeof trial === "string" && trial && experiment && plot.closest("[data-trials]")) {
        go(trialUrl(experiment, trial));
      }
    });
    window.dispatchEvent(new CustomEvent("siamray:plot", { detail: plot }));
  }

  // What scrolls must be reachable by keyboard, also where a library made it; a link that is no link gets a name.
  function tidy() {
    document.querySelectorAll(".js-plotly-plot").forEach(listen);
    document.querySelectorAll(".tabs .place.chosen:not([aria-current])").forEach(function (tab) {
      tab.parentElement.querySelectorAll("[aria-current]").forEach((one) => one.removeAttribute("aria-current"));
      tab.setAttribute("aria-current", "page");
      tab.parentElement.scrollLeft = tab.offsetLeft - tab.parentElement.clientWidth / 3;
    });
    // Dash's own controls: a target of focus that is hidden, and a slider without a name.
    document.querySelectorAll(".dash-dropdown-focus-target[tabindex='0']").forEach((one) => { one.tabIndex = -1; });
    document.querySelectorAll(".choice.slider [role=slider]").forEach(function (thumb) {
      const label = thumb.closest(".choice").querySelector(".label");
      if (label) thumb.setAttribute("aria-label", label.textContent);
    });
    document.querySelectorAll(".modebar-btn:not([aria-label])").forEach(function (button) {
      button.setAttribute("aria-label", button.dataset.title || "option of the figure");
      button.setAttribute("role", "button");
    });
  }

  // Where the server has not answered for a while, what is seen is old, and the page says so.
  let heard = Date.now(), said = "";
  window.setInterval(function () {
    const fresh = document.getElementById("fresh");
    if (fresh && fresh.textContent !== said) { said = fresh.textContent; heard = Date.now(); }
    root.dataset.stale = Date.now() - heard > 15000 ? "1" : "";
  }, 1000);

  let waiting = false;
  new MutationObserver(function () {
    if (waiting) return;
    waiting = true;
    window.setTimeout(function () { waiting = false; tidy(); }, 60);
  }).observe(document.documentElement, { childList: true, subtree: true });
})();
