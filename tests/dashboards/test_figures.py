"""The figures: their data are what the results say, and their pictures carry n, the interval and every variant."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dashboards.figures import cost, distance_histogram, examples, forest, learning_curves, seeds, style
from siamray.sweeps import results
from siamray.sweeps.metric_words import metric_name
from tests.dashboards import generated_results

METRIC = "patches_linear_auc"
INTERVAL = "95 % intervals, bootstrap over women"


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> results.Results:
    folder = tmp_path_factory.mktemp("results") / "soft_labels"
    return results.load(generated_results.write(folder, failed=[("rank", 2, "boom")]))


@pytest.fixture(scope="module")
def looks() -> dict[str, style.Look]:
    return style.looks(generated_results.VARIANTS, generated_results.CONTROLS)


def texts(value: Any) -> Iterator[str]:
    """All texts anywhere in a figure."""
    if isinstance(value, dict):
        for item in value.values():
            yield from texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from texts(item)
    elif isinstance(value, str):
        yield value


def test_forest_has_every_compared_variant_but_the_reference_and_controls_last(loaded: results.Results) -> None:
    effects = forest.data(loaded.comparison, METRIC)
    assert list(effects["variant"]) == ["hard", "rank", "none", "shuffled_partners", "untrained", "brightness"]
    assert list(effects["role"]) == ["variant"] * 4 + ["control"] * 2
    expected = loaded.comparison.query("metric == @METRIC and variant == 'hard'").iloc[0]
    assert effects["effect"][0] == expected["effect"]


def test_forest_draws_the_interval_where_the_comparison_says(
    loaded: results.Results, looks: dict[str, style.Look]
) -> None:
    effects = forest.data(loaded.comparison, METRIC)
    figure = forest.draw(effects, METRIC, "soft", looks, INTERVAL)
    assert len(figure.data) == len(effects)
    for trace, row in zip(figure.data, effects.to_dict("records"), strict=True):
        assert trace.x[0] + trace.error_x.array[0] == pytest.approx(row["effect_high"])
        assert trace.x[0] - trace.error_x.arrayminus[0] == pytest.approx(row["effect_low"])
    caption = figure.layout.meta["caption"]
    for words in ("24 test women", "3 seeds", "48 lesion patches", INTERVAL):
        assert words in caption
    ticks = list(figure.layout.yaxis.ticktext)
    assert ticks.index("<b>controls</b>") > ticks.index("<b>variants</b>")
    assert any("untrained" in tick for tick in ticks[ticks.index("<b>controls</b>") :])


def test_seeds_shows_every_finished_trial_once(loaded: results.Results, looks: dict[str, style.Look]) -> None:
    values = seeds.data(loaded.trials, METRIC)
    assert len(values) == 20
    assert not ((values["variant"] == "rank") & (values["seed"] == 2)).any()
    figure = seeds.draw(values, METRIC, looks)
    dots = [y for trace in figure.data if trace.mode == "markers" for y in trace.y]
    assert sorted(dots) == sorted(values["value"])
    lines = [trace for trace in figure.data if trace.mode == "lines" and trace.name and "seed" in trace.name]
    assert sorted(len(line.x) for line in lines) == [6, 7, 7]


def test_seeds_of_a_metric_that_no_trial_has_is_empty(loaded: results.Results) -> None:
    assert seeds.data(loaded.trials, "nothing").empty


def test_learning_curves_average_the_two_networks(loaded: results.Results) -> None:
    trials = loaded.trials[loaded.trials["trial_id"] == "soft-s0"]
    epochs = loaded.epochs("soft-s0")
    curves = learning_curves.data(trials, {"soft-s0": epochs})
    value = curves.query("quantity == 'loss' and epoch == 3")["value"].iloc[0]
    assert value == pytest.approx(epochs.loc[epochs["epoch"] == 3, "loss"].mean())
    assert set(curves["variant"]) == {"soft"}


def test_learning_curves_leave_out_what_has_no_numbers(looks: dict[str, style.Look]) -> None:
    trials = pd.DataFrame({"trial_id": ["a"], "variant": ["soft"], "role": ["variant"], "seed": [0], "fold": [0]})
    epochs = pd.DataFrame({"epoch": [0, 1], "network": ["A", "A"], "loss": [1.0, math.nan], "cross": [None, None]})
    curves = learning_curves.data(trials, {"a": epochs})
    assert list(curves["quantity"]) == ["loss"]
    assert [figure.layout.meta["title"] for figure in learning_curves.draw(curves, looks)] == ["loss"]
    assert learning_curves.data(trials, {}).empty
    assert learning_curves.draw_quantiles(curves, looks) == []


def test_every_learning_panel_has_a_line_per_variant_and_says_n(
    loaded: results.Results, looks: dict[str, style.Look]
) -> None:
    finished = loaded.trials[loaded.trials["state"] == "finished"]
    curves = learning_curves.data(finished, {name: loaded.epochs(name) for name in finished["trial_id"]})
    panels = learning_curves.draw(curves, looks)
    assert len(panels) == len(learning_curves.QUANTITIES)
    for panel in panels:
        assert sum(trace.line.width == 2.5 for trace in panel.data) == 5
        assert panel.layout.meta["caption"] == "n = 14 trials"
    quantiles = learning_curves.draw_quantiles(curves, looks)
    assert [panel.layout.meta["title"] for panel in quantiles] == list(generated_results.VARIANTS)


def test_histogram_and_mixture_are_densities(loaded: results.Results) -> None:
    curves = distance_histogram.data({"soft": loaded.distances("soft-s0")})
    last = curves[curves["epoch"] == 7]
    bars = last[last["curve"] == "histogram"]
    assert (bars["y"] * bars["width"]).sum() == pytest.approx(1, abs=1e-3)
    line = last[last["curve"] == "mixture"]
    assert np.trapezoid(line["y"], line["x"]) == pytest.approx(1, abs=0.01)
    parts = sum(last.loc[last["curve"] == f"component {i}", "y"].to_numpy() for i in (1, 2))
    assert line["y"].to_numpy() == pytest.approx(parts, abs=1e-4)


def test_an_epoch_without_mixture_has_bars_only(loaded: results.Results) -> None:
    curves = distance_histogram.data({"soft": loaded.distances("soft-s0")})
    assert set(curves.loc[curves["epoch"] == 0, "curve"]) == {"histogram"}


def test_histogram_has_a_menu_entry_per_variant_and_a_frame_per_epoch(
    loaded: results.Results, looks: dict[str, style.Look]
) -> None:
    curves = distance_histogram.data({"soft": loaded.distances("soft-s0"), "hard": loaded.distances("hard-s0")})
    figure = distance_histogram.draw(curves, looks, "Pairs")
    assert [frame.name for frame in figure.frames] == [str(epoch) for epoch in range(8)]
    buttons = figure.layout.updatemenus[0].buttons
    assert [button.label for button in buttons] == ["soft", "hard"]
    for i, button in enumerate(buttons):
        visible = button.args[0]["visible"]
        assert len(visible) == len(figure.data) == len(figure.frames[0].data)
        assert [n for n, shown in enumerate(visible) if shown] == list(range(4 * i, 4 * i + 4))
    assert "n = 3,000 pairs" in figure.layout.meta["caption"]


def test_many_epochs_are_thinned_with_first_and_last_kept() -> None:
    row = {"network": "A", "edges": [0.0, 1.0], "counts": [5], "weights": [], "means": [], "deviations": []}
    frame = pd.DataFrame([row | {"epoch": epoch, "usable": False} for epoch in range(200)])
    epochs = sorted(set(distance_histogram.data({"a": frame})["epoch"]))
    assert len(epochs) == distance_histogram.MOST_EPOCHS
    assert (epochs[0], epochs[-1]) == (0, 199)


@pytest.mark.parametrize("broken", [{"counts": [0, 0]}, {"edges": [0.0, 1.0]}, {"edges": None}, {"deviations": [0.0]}])
def test_a_histogram_that_makes_no_sense_is_left_out(broken: dict[str, Any]) -> None:
    row = {"epoch": 0, "network": "A", "edges": [0.0, 0.5, 1.0], "counts": [3, 4], "usable": True}
    row |= {"weights": [1.0], "means": [0.5], "deviations": [0.1]}
    whole = set(distance_histogram.data({"a": pd.DataFrame([row])})["curve"])
    left = set(distance_histogram.data({"a": pd.DataFrame([row | broken])})["curve"])
    assert whole == {"histogram", "component 1", "mixture"}
    assert left < whole


def test_cost_takes_value_and_interval_from_the_comparison(
    loaded: results.Results, looks: dict[str, style.Look]
) -> None:
    costs = cost.data(loaded.trials, loaded.comparison, METRIC).set_index("variant")
    compared = loaded.comparison.query("metric == @METRIC").set_index("variant")
    assert costs.loc["hard", "low"] == compared.loc["hard", "value_low"]
    wall = loaded.trials.loc[loaded.trials["variant"] == "hard", "wall_s"]
    assert costs.loc["hard", "seconds"] == pytest.approx(wall.mean())
    assert costs.loc["rank", "trials"] == 2
    figure = cost.draw(costs.reset_index(), METRIC, looks, INTERVAL)
    assert INTERVAL in figure.layout.meta["caption"]
    assert "n = 20 finished trials" in figure.layout.meta["caption"]


def test_cost_without_a_comparison_has_means_without_interval(loaded: results.Results) -> None:
    costs = cost.data(loaded.trials, loaded.comparison.head(0), METRIC).set_index("variant")
    hard = loaded.trials.query("variant == 'hard'")
    assert costs.loc["hard", "value"] == pytest.approx(hard[METRIC].mean())
    assert math.isnan(costs.loc["hard", "low"])


@settings(max_examples=40, deadline=None)
@given(
    patches=st.lists(
        st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(4, 24), st.floats(0, 2)), min_size=1, max_size=8
    ),
    cell=st.integers(2, 9),
)
def test_a_map_cell_holds_the_mean_of_the_patches_whose_central_half_covers_it(
    patches: list[tuple[int, int, int, float]], cell: int
) -> None:
    maps = pd.DataFrame(patches, columns=["row", "col", "size", "distance"])
    cells = examples.data(maps, cell)
    found = {(row, col): distance for row, col, distance in cells.itertuples(index=False)}
    expected = {}
    for i in range(100 // cell):
        for j in range(100 // cell):
            y, x = (i + 0.5) * cell, (j + 0.5) * cell
            over = [
                distance
                for row, col, size, distance in patches
                if row - size / 4 <= y < row + size / 4 and col - size / 4 <= x < col + size / 4
            ]
            if over:
                expected[y, x] = sum(over) / len(over)
    assert found.keys() == expected.keys()
    assert all(found[at] == pytest.approx(expected[at]) for at in found)


def test_examples_show_boxes_on_their_own_side_and_both_in_the_map(loaded: results.Results) -> None:
    kept = loaded.examples("soft-s0")
    left, right = kept.images["w007_MLO"]
    maps, boxes = (frame[frame["entry_id"] == "w007_MLO"] for frame in (kept.maps, kept.boxes))
    unknown = {"entry_id": "w007_MLO", "side": "right", "category": "mass"}
    boxes = pd.concat([boxes, pd.DataFrame([unknown])])
    panels = examples.draw(left, right, maps, boxes, (0.4, 1.0))
    assert [len(panel.layout.shapes) for panel in panels] == [1, 0, 1]
    box = panels[0].layout.shapes[0]
    assert (box.y0, box.x0, box.y1, box.x1) == (210, 100, 250, 140)
    assert all(panel.layout.images[0].source.startswith("data:image/png;base64,") for panel in panels)
    heat = panels[2].data[0]
    assert np.nanmax(np.asarray(heat.z, dtype=float)) <= maps["distance"].max()
    row, col = np.unravel_index(np.nanargmax(np.asarray(heat.z, dtype=float)), np.shape(heat.z))
    # Patches lie every 32 pixels, and each is drawn 16 around its centre: the peak is that near to the lesion at 230.
    assert abs(heat.y[row] - 230) < 32 + 16
    assert 90 < heat.x[col] < 150


def test_examples_without_a_map_still_show_the_images(loaded: results.Results) -> None:
    kept = loaded.examples("soft-s0")
    left, right = kept.images["w007_MLO"]
    panels = examples.draw(left, right, kept.maps.head(0), kept.boxes.head(0), (0.0, 1.0))
    assert [len(panel.layout.images) for panel in panels] == [1, 1, 1]


@settings(max_examples=60, deadline=None)
@given(name=st.text(max_size=60), length=st.integers(1, 30))
def test_a_name_in_a_figure_is_text_and_short(name: str, length: int) -> None:
    words = style.plain(name, length)
    assert not set("<>{") & set(words)
    assert len(style.plain(name.replace("&", "").replace("<", "").replace(">", "").replace("{", ""), length)) <= length


def test_hostile_names_are_escaped_in_every_figure(tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)>"
    folder = generated_results.write(
        tmp_path / "e", variants={"soft": [], name: []}, controls={}, epochs=3, examples=False
    )
    loaded = results.load(folder)
    looks = style.looks(["soft", name])
    finished = loaded.trials
    curves = learning_curves.data(finished, {trial: loaded.epochs(trial) for trial in finished["trial_id"]})
    records = {
        str(variant): loaded.distances(str(trial))
        for variant, trial in zip(finished["variant"], finished["trial_id"], strict=True)
    }
    figures: list[go.Figure] = [
        forest.draw(forest.data(loaded.comparison, METRIC), METRIC, "soft", looks, INTERVAL),
        seeds.draw(seeds.data(finished, METRIC), METRIC, looks),
        cost.draw(cost.data(finished, loaded.comparison, METRIC), METRIC, looks, INTERVAL),
        distance_histogram.draw(distance_histogram.data(records), looks, "Pairs"),
        *learning_curves.draw(curves, looks),
    ]
    for figure in figures:
        shown = figure.to_dict()
        assert not [words for key in ("data", "layout") for words in texts(shown[key]) if "<img" in words]


def test_variants_differ_in_colour_or_dash_and_controls_are_grey() -> None:
    looked = style.looks([f"v{i}" for i in range(20)], ["c1", "c2"])
    assert len({(look.color, look.dash) for name, look in looked.items() if name.startswith("v")}) == 20
    assert looked["c1"].color in style.GREYS
    assert looked["c1"] != looked["c2"]


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (style.interval(0.5, 0.4, 0.6), "0.500 [0.400, 0.600]"),
        (style.interval(-0.02, -0.05, 0.01, sign=True), "\u22120.020 [\u22120.050, +0.010]"),
        (style.interval(0.5, math.nan, math.nan), "0.500"),
        (style.interval(math.nan, 0.1, 0.2), "\u2013"),
        (style.probability(0.0004), "< 0.001"),
        (style.probability(0.04), "0.040"),
        (style.probability(math.nan), "\u2013"),
        (style.seconds(4.24), "4.2 s"),
        (style.seconds(60 * 30), "30.0 min"),
        (style.seconds(3600 * 30), "30.0 h"),
        (metric_name("patches_linear_auc"), "AUC of the linear probe on patches"),
        (metric_name("validation_patches_knn20_ap"),
         "average precision of the 20 nearest neighbours on patches (validation women)"),
        (metric_name("something_else"), "something else"),
        (style.count(1, "seed"), "1 seed"),
        (style.count(pd.NA, "seed"), ""),
    ],
)  # fmt: skip
def test_numbers_and_metrics_are_said_in_words(shown: str, expected: str) -> None:
    assert shown == expected


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("patches_linear@10_auc", "AUC of the linear probe with 10 % of the labelled women on patches"),
        ("detection_linear_froc_mean", "mean FROC sensitivity of the linear probe on detection"),
        (
            "detection_distance_froc_0.25",
            "sensitivity at 0.25 false positives an image of the left-right distance on detection",
        ),
        ("birads_exam_attention_macro_auc", "macro AUC of the attention pooling of the exam on birads"),
        ("outcome_attention_auc", "AUC of the attention pooling on outcome"),
    ],
)
def test_metrics_of_all_tasks_are_named_in_words(metric: str, words: str) -> None:
    assert metric_name(metric) == words
