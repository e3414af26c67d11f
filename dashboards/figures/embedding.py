"""Places of samples on a map of their features in, the map coloured by what is known of them out."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dashboards import neighbours
from dashboards.figures import style

COLORS = {"category": "kind of lesion", "label": "label", "woman_id": "woman", "vendor": "vendor", "site": "site",
          "source": "data set", "side": "side", "split": "split", "density": "density", "view": "view"}  # fmt: skip
"""Column -> what it colours by."""

COMPONENTS, NEIGHBOURS = "components", "neighbours"
PROJECTIONS = {COMPONENTS: "principal components", NEIGHBOURS: "neighbours (t-SNE)"}
"""What the map is -> how it is called."""

MOST_COLORS = 12


def known_colors(embedding: pd.DataFrame) -> dict[str, str]:
    """Those of COLORS that anything is known of."""
    return {column: words for column, words in COLORS.items() if embedding[column].notna().any()}


def has_neighbours(embedding: pd.DataFrame) -> bool:
    """Whether neighbours can be mapped: an older siamray kept two components alone."""
    return bool(embedding["components"].notna().any())


def as_neighbours(embedding: pd.DataFrame) -> pd.DataFrame:
    """Puts t-SNE's places for x and y, and leaves out the samples whose components were not kept.

    Args:
        embedding: FEATURE_COLUMNS of siamray.sweeps.results.
    """
    kept = embedding[embedding["components"].notna()]
    found = neighbours.places(np.stack(kept["components"].to_list()))
    return kept.assign(x=found[:, 0], y=found[:, 1])


def data(embedding: pd.DataFrame, column: str) -> pd.DataFrame:
    """Brings the map into the order in which it is drawn: the most frequent group below.

    Args:
        embedding: FEATURE_COLUMNS of siamray.sweeps.results.
        column: one of COLORS.

    Returns:
        x, y, group, woman_id, sample_id; beyond MOST_COLORS groups the rarer ones are "other".
    """
    group = embedding[column].astype("object").where(embedding[column].notna(), "unknown").astype(str)
    frequent = group.value_counts()
    kept = set(frequent.index[: MOST_COLORS - 1]) if len(frequent) > MOST_COLORS else set(frequent.index)
    named = group.where(group.isin(kept), "other")
    order = named.map(named.value_counts()).sort_values(ascending=False, kind="stable").index
    made = embedding[["x", "y", "woman_id", "sample_id"]].assign(group=named)
    return made.loc[order].reset_index(drop=True)


def draw(
    shown: pd.DataFrame, column: str, explained: tuple[float, float], projection: str = COMPONENTS, tested: int = 0
) -> go.Figure:
    """Draws a point per sample.

    Args:
        shown: from data().
        column: one of COLORS.
        explained: share of the variance on each axis, of principal components.
        projection: one of PROJECTIONS.
        tested: number of samples of which those shown were drawn.
    """
    figure = go.Figure()
    for place, (name, own) in enumerate(shown.groupby("group", sort=False)):
        # A site may be called 0 as well.
        grey = str(name) in ("normal", "other", "unknown") or (str(name) == "0" and column == "label")
        color = style.NEUTRAL if grey else style.PALETTE[place % len(style.PALETTE)]
        figure.add_trace(
            go.Scattergl(
                x=own["x"], y=own["y"], mode="markers", name=style.plain(str(name).replace("_", " "), 24),
                marker={"color": color, "symbol": style.SYMBOLS[place % len(style.SYMBOLS)], "size": 7,
                        "opacity": 0.45 if grey else 0.85},
                text=[style.plain(f"{woman}, {sample}") for woman, sample in zip(own["woman_id"], own["sample_id"],
                                                                                  strict=True)],
                hovertemplate="%{text}<extra></extra>",
            )
        )  # fmt: skip
    for axis, share, number in ((figure.update_xaxes, explained[0], 1), (figure.update_yaxes, explained[1], 2)):
        words = f"component {number} ({100 * share:.0f} % of the variance)"
        # Places of t-SNE have no unit.
        ticks = {"nticks": 5} if projection == COMPONENTS else {"showticklabels": False}
        axis(title_text=words if projection == COMPONENTS else f"t-SNE, axis {number}", zeroline=False, **ticks)
    women = shown["woman_id"].nunique()
    counted = f"n = {style.count(len(shown), 'sample')} of {style.count(women, 'woman', 'women')}"
    if len(shown) < tested:
        counted += f", drawn from {tested:,} with the same seed in all trials, half of them lesions where there are any"
    if projection == COMPONENTS:
        meaning = (
            "The first two principal components of the encoder's features: near points look alike to it. No intervals, "
            "and no direction is better"
        )
    else:
        meaning = (
            "t-SNE of the first 30 principal components of the encoder's features (perplexity "
            f"{neighbours.PERPLEXITY}, seed 0): neighbours look alike to it; distances and sizes of groups mean "
            "nothing, and another seed draws another map. No intervals"
        )
    caption = f"{counted}. {meaning}; coloured by {COLORS[column]}."
    return style.finish(figure, "Map of the features", caption, 480)
