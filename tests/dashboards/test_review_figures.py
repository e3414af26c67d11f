"""What the figures of the pages show is what an independent computation gives, and samples are told as samples."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import precision_recall_curve, roc_auc_score, roc_curve

from dashboards import neighbours, searched, trial_table
from dashboards.address import Address, read_address
from dashboards.figures import (
    calibration,
    data_counts,
    embedding,
    history,
    intermediate,
    operating_curves,
    parallel_coordinates,
    slices,
    style,
    subgroups,
    tasks,
    waterfall,
)
from siamray.sweeps import results
from tests.dashboards import generated_results, generated_search

RNG = np.random.default_rng(3)


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> results.Results:
    return results.load(generated_search.write(tmp_path_factory.mktemp("search") / "method"))


@pytest.fixture(scope="module")
def scored() -> pd.DataFrame:
    label = RNG.integers(0, 2, 120)
    value = np.round(label + RNG.normal(0, 1, 120), 1)  # with ties
    return pd.DataFrame({"label": label, "value": value, "woman_id": [f"w{i // 4}" for i in range(120)]})


def test_the_roc_curve_is_scikit_learns(scored: pd.DataFrame) -> None:
    own = operating_curves.data(scored)
    roc = own[own["curve"] == "ROC"]
    fpr, tpr, _ = roc_curve(scored["label"], scored["value"], drop_intermediate=False)
    assert roc["y"].to_numpy() == pytest.approx(np.interp(roc["x"], fpr, tpr))
    assert (roc["low"] <= roc["y"] + 1e-9).mean() > 0.9
    assert (roc["high"] >= roc["low"]).all()


def test_precision_at_a_recall_is_that_of_the_strictest_threshold_that_reaches_it(scored: pd.DataFrame) -> None:
    own = operating_curves.data(scored)
    curve = own[own["curve"] == "precision-recall"]
    precision, recall, _ = precision_recall_curve(scored["label"], scored["value"])
    expected = [precision[recall >= x - 1e-12][-1] for x in curve["x"]]
    assert curve["y"].to_numpy() == pytest.approx(expected)


def test_one_class_alone_has_no_curve(scored: pd.DataFrame) -> None:
    assert operating_curves.data(scored[scored["label"] == 1]).empty
    assert operating_curves.data(scored.iloc[:0]).empty


def test_the_froc_curve_counts_lesions_and_false_positives_by_hand() -> None:
    shared = {"score": "distance", "split": "test", "entry_id": "e1", "side": "left", "woman_id": "a"}
    rows = pd.DataFrame(
        [
            {"task": operating_curves.IMAGE, "label": 0, "value": np.nan, **shared},
            {"task": operating_curves.IMAGE, "label": 0, "value": np.nan, **shared | {"side": "right"}},
            {"task": operating_curves.LESION, "label": 1, "value": 0.9, **shared},
            {"task": operating_curves.LESION, "label": 1, "value": 0.5, **shared},
            {"task": operating_curves.LESION, "label": 1, "value": np.nan, **shared},
            *({"task": operating_curves.CANDIDATE, "label": 0, "value": v, **shared} for v in (0.7, 0.6, 0.2)),
            {"task": operating_curves.CANDIDATE, "label": 1, "value": 0.9, **shared},
        ]
    )
    curve = operating_curves.froc_data(rows).set_index("x")["y"]
    # Two images: no false positive finds 1 of 3 lesions; the second lesion needs the two above .5, one an image.
    assert curve[0.0] == pytest.approx(1 / 3)
    assert curve[0.5] == pytest.approx(1 / 3)
    assert curve[1.0] == pytest.approx(2 / 3)
    assert curve[4.0] == pytest.approx(2 / 3)
    assert operating_curves.froc_data(rows[rows["task"] != operating_curves.LESION]).empty


def test_auc_in_draws_is_that_of_the_drawn_samples() -> None:
    label = RNG.integers(0, 2, 60) == 1
    value = np.round(RNG.normal(0, 1, 60) + label, 1)
    weights = np.vstack([np.ones(60), RNG.integers(0, 3, (4, 60))])
    found = subgroups.auc(label, value, weights)
    expected = [roc_auc_score(label, value, sample_weight=row) for row in weights]
    assert found == pytest.approx(expected)
    assert np.isnan(subgroups.auc(label, value, np.zeros((1, 60)))[0])


def test_a_subgroups_difference_is_that_of_its_samples() -> None:
    tables = {
        (name, 0, 0): generated_results._predictions(name, np.random.default_rng(seed))
        for seed, name in enumerate(("soft", "hard"))
    }
    tables = {trial: table.assign(vendor="GE") for trial, table in tables.items()}
    found = subgroups.data(tables, "soft", "patches", "linear")
    row = found[(found["subgroup"] == "mass") & (found["variant"] == "hard")].iloc[0]
    values = {}
    for name in ("soft", "hard"):
        own = tables[name, 0, 0]
        own = own[(own["score"] == "linear") & ((own["category"] == "mass") | (own["label"] == 0))]
        values[name] = roc_auc_score(own["label"], own["value"])
    assert row["value"] == pytest.approx(values["hard"])
    assert row["effect"] == pytest.approx(values["hard"] - values["soft"])
    assert row["low"] <= row["effect"] <= row["high"]
    assert set(found["grouping"]) == {"category", "density", "view"}
    assert len(subgroups.draw(found, "soft", style.looks(["soft", "hard"]))) == found["subgroup"].nunique()


def test_women_of_two_sites_are_in_the_subgroup_of_neither() -> None:
    images = pd.DataFrame({"woman_id": ["a", "a", "b", "b", "c", "d"], "site": ["1", "1", "1", "2", None, "2"]})
    assert subgroups.of_women(images, "site").to_dict() == {"a": "1", "d": "2"}


def test_a_difference_within_a_site_is_that_of_its_women() -> None:
    tables = {
        (name, 0, 0): generated_results._predictions(name, np.random.default_rng(seed))
        for seed, name in enumerate(("soft", "hard"))
    }
    # The last three women are of no known site.
    north, south = "w010", "w021"
    tables = {
        trial: table.assign(
            site=np.select([table["woman_id"] < north, table["woman_id"] < south], ["north", "south"], None)
        )
        for trial, table in tables.items()
    }
    found = subgroups.data(tables, "soft", "patches", "linear")
    assert set(found.loc[found["grouping"] == "site", "subgroup"]) == {"north", "south"}
    row = found[(found["subgroup"] == "north") & (found["variant"] == "hard")].iloc[0]
    own = {
        trial[0]: table[(table["score"] == "linear") & (table["site"] == "north")] for trial, table in tables.items()
    }
    values = {name: roc_auc_score(table["label"], table["value"]) for name, table in own.items()}
    assert row["effect"] == pytest.approx(values["hard"] - values["soft"])
    assert row["women"] == own["soft"]["woman_id"].nunique() < tables["soft", 0, 0]["woman_id"].nunique()


def test_the_soft_label_is_the_posterior_of_the_component_of_greatest_distances() -> None:
    weights, means, deviations = [0.3, 0.7], [1.2, 0.4], [0.2, 0.1]
    x = np.array([0.2, 0.8, 1.5])
    parts = [w * stats.norm.pdf(x, m, s) for w, m, s in zip(weights, means, deviations, strict=True)]
    assert calibration.soft_label(x, weights, means, deviations) == pytest.approx(parts[0] / (parts[0] + parts[1]))


def test_calibration_counts_every_pair_once() -> None:
    soft = np.array([0.0, 0.05, 0.55, 0.59, 1.0])
    found = calibration.data([0, 1, 1, 1, 1], soft)
    assert found["n"].tolist() == [2, 2, 1]
    assert found["observed"].tolist() == [0.5, 1.0, 1.0]
    assert ((found["low"] <= found["observed"]) & (found["observed"] <= found["high"])).all()


def test_a_search_is_tabulated_the_same_while_it_runs_and_after(tmp_path_factory: pytest.TempPathFactory) -> None:
    ended = searched.searched(results.load(generated_search.write(tmp_path_factory.mktemp("a") / "method")))
    running = searched.searched(
        results.load(generated_search.write(tmp_path_factory.mktemp("b") / "method", ended=False))
    )
    for option in generated_search.OPTIONS:
        assert option in ended
    shared = [name for name in running if name in ended]
    pd.testing.assert_frame_equal(ended[shared], running[shared], check_dtype=False)
    assert ended["number"].tolist() == list(range(24))


def test_the_history_follows_the_best_so_far(search: results.Results) -> None:
    trials = searched.searched(search)
    up = history.data(trials, generated_search.METRIC, "maximize")
    assert (up["best"] == up["value"].cummax()).all()
    down = history.data(trials, "cpu_s", "minimize")
    assert down["best"].is_monotonic_decreasing
    assert history.data(trials, "unknown", "maximize").empty


def test_parallel_coordinates_filter_by_what_is_brushed_and_tell_their_sample(search: results.Results) -> None:
    trials = searched.searched(search)
    own = trials[trials[generated_search.METRIC].notna()]
    placed = parallel_coordinates.axes(own, generated_search.OPTIONS, generated_search.METRIC)
    by_name = {axis.name: axis for axis in placed}
    assert by_name["pretraining.learning_rate"].logarithmic
    assert by_name["pretraining.margin"].incomplete
    assert list(by_name["pretraining.loss"].ticks.values()) == ["hinge", "logistic"]
    kept = parallel_coordinates.within(own, placed, {"pretraining.learning_rate": [(-3.5, -2.5)]})
    rates = own["pretraining.learning_rate"]
    assert kept["trial_id"].tolist() == own.loc[rates.between(10**-3.5, 10**-2.5), "trial_id"].tolist()
    hinge = parallel_coordinates.within(own, placed, {"pretraining.loss": [(-0.25, 0.25)]})
    assert set(hinge["pretraining.loss"]) == {"hinge"}
    many = pd.concat([own] * 60, ignore_index=True)
    chosen = parallel_coordinates.sample(many, generated_search.METRIC, "maximize")
    assert len(chosen) == parallel_coordinates.MOST_LINES
    assert many[generated_search.METRIC].max() in set(chosen[generated_search.METRIC])
    placed = parallel_coordinates.axes(many, generated_search.OPTIONS, generated_search.METRIC)
    figure = parallel_coordinates.draw(
        placed, many.index.isin(chosen.index), generated_search.METRIC, "maximize", {"pretraining.loss": [(0.8, 1.2)]}
    )
    assert f"400 of {len(many):,} trials" in figure.layout.meta["caption"]
    ranges = {dimension.name: dimension.constraintrange for dimension in figure.data[0].dimensions}
    assert np.ravel(ranges["pretraining.loss"]).tolist() == [0.8, 1.2]


def test_slices_contour_and_front_are_drawn_of_what_there_is(search: results.Results) -> None:
    trials = searched.searched(search)
    shown = slices.data(trials, generated_search.METRIC)
    drawn = slices.draw(shown, generated_search.OPTIONS, generated_search.METRIC, "maximize", 30)
    assert [figure.layout.meta["title"] for figure in drawn] == generated_search.OPTIONS
    assert "of 30 trials, drawn at random" in drawn[0].layout.meta["caption"]
    first, second = generated_search.OPTIONS[0], generated_search.OPTIONS[3]
    assert slices.draw_contour(shown, first, second, generated_search.METRIC, "maximize", len(shown)) is not None
    assert slices.draw_contour(shown.head(2), first, second, generated_search.METRIC, "maximize", 2) is None
    figure = slices.draw_front(trials, generated_search.OBJECTIVES)
    assert figure is not None
    assert [trace.name for trace in figure.data] == ["not on the front", "Pareto front", "winner"]
    assert slices.draw_front(trials, {"cpu_s": "minimize"}) is None


def test_trials_that_were_stopped_are_marked_where_they_were(search: results.Results) -> None:
    states = dict(zip(search.trials["trial_id"], search.trials["state"], strict=True))
    values = intermediate.data(states, {name: search.validation(name) for name in states})
    figure = intermediate.draw(values, generated_search.METRIC, "maximize", len(states))
    stopped = next(trace for trace in figure.data if trace.name == "stopped here")
    assert len(stopped.x) == sum(state == "pruned" for state in states.values())
    assert set(stopped.x) == {3}


def test_the_waterfall_goes_from_the_whole_to_each_part(tmp_path_factory: pytest.TempPathFactory) -> None:
    loaded = results.load(generated_results.write(tmp_path_factory.mktemp("w") / "e", epochs=0, examples=False))
    steps = waterfall.data(loaded.comparison, "patches_linear_auc")
    assert steps["effect"].is_monotonic_increasing
    assert "soft" not in set(steps["variant"])
    assert "untrained" not in set(steps["variant"])
    figure = waterfall.draw(steps, "patches_linear_auc", "soft", style.looks(steps["variant"]), "95 % intervals")
    assert all(trace.base[0] == steps["reference_value"].iloc[0] for trace in figure.data)
    side = tasks.draw(tasks.data(loaded.comparison), "soft")
    assert np.shape(side.data[0].z) == (6, loaded.comparison.dropna(subset="effect")["metric"].nunique())


def test_the_map_of_features_names_the_rarest_groups_other() -> None:
    frame = pd.DataFrame({"x": 0.0, "y": 0.0, "sample_id": "s", "woman_id": [f"w{i}" for i in range(40)]})
    frame["category"] = None
    shown = embedding.data(frame, "woman_id")
    assert shown["group"].nunique() == embedding.MOST_COLORS
    assert set(embedding.data(frame, "category")["group"]) == {"unknown"}


def test_neighbours_stay_neighbours_are_bounded_and_the_same_whenever_they_are_asked_for() -> None:
    group = np.repeat([0, 1, 2], 40)
    components = RNG.normal(0, 0.3, (len(group), 30)) + 4 * np.eye(30)[group]
    frame = pd.DataFrame(
        {"sample_id": [f"s{i}" for i in range(150)], "woman_id": "w", "vendor": "ge", "x": 0.0, "y": 0.0,
         "components": [*components.astype(np.float32), *[None] * 30]}
    )  # fmt: skip
    assert embedding.has_neighbours(frame)
    placed = embedding.as_neighbours(frame)
    assert len(placed) == 120
    places = placed[["x", "y"]].to_numpy()
    distances = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (group[distances.argmin(axis=1)] == group).all()
    neighbours._placed.cache_clear()
    assert np.array_equal(embedding.as_neighbours(frame)[["x", "y"]].to_numpy(), places)
    figure = embedding.draw(
        embedding.data(placed, "vendor"), "vendor", (0.4, 0.2), embedding.NEIGHBOURS, tested=len(frame)
    )
    caption = figure.layout.meta["caption"]
    assert "n = 120 samples of 1 woman, drawn from 150 with the same seed" in caption
    assert "distances and sizes of groups mean nothing" in caption
    assert neighbours.places(np.zeros((2, 30), dtype=np.float32)).tolist() == [[0, 0], [0, 0]]


def test_colours_of_which_nothing_is_known_are_not_offered() -> None:
    frame = pd.DataFrame({name: [None, "a"] for name in embedding.COLORS}).assign(vendor=None)
    assert "vendor" not in embedding.known_colors(frame)
    assert len(embedding.known_colors(frame)) == len(embedding.COLORS) - 1


def test_the_map_is_coloured_by_site_where_one_is_known() -> None:
    frame = pd.DataFrame({name: ["a"] * 4 for name in embedding.COLORS}).assign(x=0.0, y=0.0, sample_id="s")
    frame["site"] = ["north", "north", "0", None]
    assert embedding.known_colors(frame)["site"] == "site"
    shown = embedding.data(frame, "site")
    assert shown["group"].tolist()[:2] == ["north", "north"]
    figure = embedding.draw(shown, "site", (0.4, 0.2))
    colors = {trace.name: trace.marker.color for trace in figure.data}
    assert set(colors) == {"north", "0", "unknown"}
    assert len(set(colors.values())) == 3
    assert figure.layout.meta["caption"].endswith("coloured by site.")
    assert "site" not in embedding.known_colors(frame.assign(site=None))


def test_of_many_sites_the_rarer_are_counted_together_and_numbers_go_by_size() -> None:
    names = [str(number) for number in range(1, 21) for _ in range(40 - number)]
    images = pd.DataFrame({"site": names, "woman_id": names, "used": True}).reindex(columns=results.IMAGE_COLUMNS)
    sites = data_counts.counts(images).set_index("value")
    kept = data_counts.MOST_VALUES - 1
    assert sites.index.tolist() == [*(str(number) for number in range(1, kept + 1)), f"{20 - kept} others"]
    assert sites["used"].sum() == len(images)
    assert sites["women"].iloc[-1] == 20 - kept


def test_images_left_out_are_counted_by_reason() -> None:
    images = generated_results.images()
    found = data_counts.reasons(images)
    assert found.to_dict("records") == [{"reason": "registration quality 0.52 is below 0.6", "images": 4, "women": 1}]
    counted = data_counts.counts(images)
    assert set(counted["label"]) == {"view", "density", "vendor", "site"}
    sites = counted[counted["label"] == "site"].set_index("value")
    assert sites["women"].to_dict() == {"north": 10, "south": 10, "unknown": 10}
    assert sites["left_out"].to_dict() == {"north": 4, "south": 0, "unknown": 0}
    assert counted.loc[counted["label"] == "view", ["used", "left_out"]].to_numpy().sum() == len(images)
    assert len(data_counts.quality(images)) == 60
    assert data_counts.quality(images)["quality"].is_monotonic_increasing


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({"state": {"type": "contains", "filter": "FIN"}}, [0, 1]),
        ({"state": {"type": "notContains", "filter": "fin"}}, [2, 3]),
        ({"auc": {"type": "greaterThan", "filter": 0.75}}, [1]),
        ({"auc": {"type": "inRange", "filter": 0.6, "filterTo": 0.75}}, [0, 3]),
        ({"auc": {"type": "blank"}}, [2]),
        ({"auc": {"operator": "OR", "conditions": [{"type": "blank"}, {"type": "lessThan", "filter": 0.65}]}}, [2, 3]),
        ({"state": {"type": "equals", "filter": "failed"}, "auc": {"type": "notBlank"}}, [3]),
        ({"unknown": {"type": "equals", "filter": 1}, "state": "broken", "auc": {"type": "odd"}}, [0, 1, 2, 3]),
        ({"state": {"type": "contains", "filter": "("}}, []),
    ],
)
def test_rows_are_filtered_as_the_table_asks(model: dict[str, object], expected: list[int]) -> None:
    frame = pd.DataFrame({"state": ["finished", "finished", None, "failed"], "auc": [0.7, 0.8, np.nan, 0.6]})
    assert trial_table.filtered(frame, model).index.tolist() == expected


def test_rows_are_sorted_and_paged() -> None:
    frame = pd.DataFrame({"trial_id": [f"t{i}" for i in range(500)], "auc": [i % 7 for i in range(500)]})
    asked = {"startRow": 100, "endRow": 200, "sortModel": [{"colId": "auc", "sort": "desc"}, {"colId": "gone"}]}
    answer = trial_table.rows(frame, asked)
    assert answer["rowCount"] == 500
    expected = frame.sort_values("auc", ascending=False, kind="stable")["trial_id"].iloc[100:200].tolist()
    assert [row["trial_id"] for row in answer["rowData"]] == expected
    assert len(trial_table.rows(frame, {"startRow": 0, "endRow": 10**9})["rowData"]) == 5 * trial_table.BLOCK


@pytest.mark.parametrize(
    "address",
    [
        Address("overview"),
        Address("experiment", "a b/c", state={"metric": "x_auc", "view": "tasks"}),
        Address("trial", "é", "t 1?#"),
        Address("exams", "e", state={"exam": "w1&w2"}),
    ],
)
def test_an_address_is_read_back_as_it_was_written(address: Address) -> None:
    path, _, query = address.url.partition("?")
    assert read_address(path, query) == address
    assert read_address("/experiment/x/secrets", "").page == "unknown"
    assert read_address("/experiment/x/exams/y", "").page == "unknown"
