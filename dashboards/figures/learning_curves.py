"""Epoch records of the trials in, a panel per quantity and a panel of distance quantiles per variant out."""

from collections.abc import Iterable, Mapping

import pandas as pd
import plotly.graph_objects as go

from dashboards.figures import style

QUANTITIES = {
    "loss": "loss",
    "contrastive": "contrastive term",
    "cross": "cross-regularization term",
    "anti_collapse": "anti-collapse term",
    "label_mean": "mean soft label",
    "effective_rank": "effective rank of the embeddings",
    "embedding_deviation": "mean deviation of an embedding dimension",
    "agreement": "agreement of the two networks",
    "separation": "separation of the mixture (Ashman's D)",
}
"""Column of the epoch records -> what it is."""

QUANTILES = {"d_q05": "5 %", "d_q25": "25 %", "d_q50": "median", "d_q75": "75 %", "d_q95": "95 %"}

COLUMNS = ["trial_id", "variant", "role", "seed", "fold", "epoch", "quantity", "value"]


def data(trials: pd.DataFrame, epochs: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Brings the epoch records into long form.

    Args:
        trials: TRIAL_COLUMNS of siamray.sweeps.results.
        epochs: trial_id -> EPOCH_COLUMNS.

    Returns:
        COLUMNS: one row per trial, epoch and quantity, the mean of the two networks; what is not a number is left out.
    """
    wanted = [*QUANTITIES, *QUANTILES]
    long = []
    for row in style.records(trials):
        frame = epochs.get(str(row["trial_id"]))
        if frame is None or frame.empty:
            continue
        numbers = frame.reindex(columns=["epoch", *wanted]).apply(pd.to_numeric, errors="coerce")
        mean = numbers.groupby("epoch", as_index=False)[wanted].mean()
        tidy = mean.melt(id_vars="epoch", var_name="quantity").dropna(subset="value")
        same = {key: row[key] for key in ("trial_id", "variant", "role", "seed", "fold")}
        long.append(tidy.assign(**same)[COLUMNS])
    return pd.concat(long, ignore_index=True) if long else pd.DataFrame(columns=COLUMNS)


def draw(curves: pd.DataFrame, looks: dict[str, style.Look]) -> list[go.Figure]:
    """Draws a panel per quantity: a thick line per variant (mean of the seeds), a thin one per seed.

    Args:
        curves: from data().
        looks: variant -> look.
    """
    return [
        _panel(curves[curves["quantity"] == quantity], title, looks)
        for quantity, title in QUANTITIES.items()
        if (curves["quantity"] == quantity).any()
    ]


def draw_quantiles(curves: pd.DataFrame, looks: dict[str, style.Look]) -> list[go.Figure]:
    """Draws a panel per variant: bands and median of the raw pair distances by epoch, on one common scale.

    Args:
        curves: from data().
        looks: variant -> look.
    """
    rows = curves[curves["quantity"].isin(QUANTILES)]
    if rows.empty:
        return []
    top = float(rows["value"].max()) * 1.05
    return [
        _quantile_panel(str(name), group, style.look_of(str(name), looks), top)
        for name, group in rows.groupby("variant", sort=False)
    ]


def _panel(rows: pd.DataFrame, title: str, looks: dict[str, style.Look]) -> go.Figure:
    figure = go.Figure()
    for name, group in rows.groupby("variant", sort=False):
        look = style.look_of(str(name), looks)
        words = style.plain(name)
        xs: list[float | None] = []
        ys: list[float | None] = []
        for _, line in group.groupby("trial_id"):
            # One trace for all trials, broken between them: many traces are slow to draw.
            xs += [*line["epoch"], None]
            ys += [*line["value"], None]
        figure.add_trace(
            go.Scatter(
                x=xs, y=ys, mode="lines", opacity=0.3, hoverinfo="skip", line={"color": look.color, "width": 1},
            )
        )  # fmt: skip
        mean = group.groupby("epoch", as_index=False)["value"].mean()
        figure.add_trace(
            go.Scatter(
                x=mean["epoch"], y=mean["value"], mode="lines+markers" if len(mean) == 1 else "lines",
                line={"color": look.color, "width": 2.5, "dash": look.dash},
                hovertemplate=f"<b>{words}</b> epoch %{{x}}: %{{y:.4g}}<extra></extra>",
            )
        )  # fmt: skip
    _epoch_axis(figure, rows["epoch"])
    low, high = float(rows["value"].min()), float(rows["value"].max())
    if high - low < 1e-6 * max(abs(high), 1e-6):
        figure.update_yaxes(range=[low - 0.5 * max(abs(low), 0.1), high + 0.5 * max(abs(high), 0.1)])
    figure.update_layout(showlegend=False)
    return style.finish(figure, title, _seed_words(rows), 230)


def _quantile_panel(name: str, rows: pd.DataFrame, look: style.Look, top: float) -> go.Figure:
    wide = rows.groupby(["epoch", "quantity"])["value"].mean().unstack().reindex(columns=list(QUANTILES))
    figure = go.Figure()
    for low, high, opacity in (("d_q05", "d_q95", 0.18), ("d_q25", "d_q75", 0.35)):
        figure.add_trace(
            go.Scatter(
                x=[*wide.index, *wide.index[::-1]], y=[*wide[high], *wide[low][::-1]], fill="toself", mode="none",
                fillcolor=_faded(look.color, opacity), hoverinfo="skip",
            )
        )  # fmt: skip
    for column, words in QUANTILES.items():
        figure.add_trace(
            go.Scatter(
                # An untrained encoder has one epoch, and a line of one point is not seen.
                x=wide.index, y=wide[column], mode="lines" if len(wide) > 1 else "markers",
                line={"color": look.color, "width": 2.5 if column == "d_q50" else 0.8},
                marker={"color": look.color, "size": 9 if column == "d_q50" else 5},
                hovertemplate=f"{words}, epoch %{{x}}: %{{y:.4g}}<extra></extra>",
            )
        )  # fmt: skip
    _epoch_axis(figure, rows["epoch"])
    figure.update_yaxes(range=[0, top])
    figure.update_layout(showlegend=False)
    return style.finish(figure, name, _seed_words(rows), 230)


def _epoch_axis(figure: go.Figure, epochs: Iterable[int]) -> None:
    few = len(set(epochs)) <= 10
    figure.update_xaxes(
        title_text="epoch", showgrid=False, nticks=6, dtick=1 if few and len(set(epochs)) <= 5 else None
    )
    figure.update_yaxes(nticks=5, tickformat=".3~g")


def _seed_words(rows: pd.DataFrame) -> str:
    return f"n = {style.count(len(set(rows['trial_id'])), 'trial')}"


def _faded(color: str, opacity: float) -> str:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"
