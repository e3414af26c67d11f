"""What became of every image in, women and samples by what is known of them, reasons and registration quality out."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dashboards.figures import style

LABELS = {"view": "view", "density": "density", "birads": "BI-RADS", "outcome": "outcome", "vendor": "vendor",
          "site": "site"}  # fmt: skip
"""Column of the images -> what it is."""

UNKNOWN = "unknown"
BINS = 25
MOST_VALUES = 16


def counts(images: pd.DataFrame) -> pd.DataFrame:
    """Counts used and left-out images by every label.

    Args:
        images: IMAGE_COLUMNS of siamray.sweeps.results.

    Returns:
        label, value, used, left_out, women; labels of which nothing is known are left out, and beyond MOST_VALUES
        values (an archive may have many sites) the rarer ones are one row, the last.
    """
    rows = []
    for column, name in LABELS.items():
        if not images[column].notna().any():
            continue
        value = images[column].map(lambda one: UNKNOWN if pd.isna(one) else _word(one))
        frequent = value.value_counts().index[: MOST_VALUES - 1]
        rarer = f"{value.nunique() - len(frequent)} others"
        named = value.where(value.isin(frequent), rarer) if value.nunique() > MOST_VALUES else value
        for word, own in sorted(images.groupby(named), key=lambda group: (group[0] == rarer, _in_order(group[0]))):
            used = own["used"].astype(bool)
            rows.append((name, str(word), int(used.sum()), int((~used).sum()), own["woman_id"].nunique()))
    return pd.DataFrame(rows, columns=["label", "value", "used", "left_out", "women"])


def reasons(images: pd.DataFrame) -> pd.DataFrame:
    """Counts why images were left out, the most frequent reason first.

    Args:
        images: IMAGE_COLUMNS.

    Returns:
        reason, images, women.
    """
    out = images[~images["used"].astype(bool)]
    grouped = out.groupby(out["reason"].fillna(UNKNOWN))
    found = grouped.agg(images=("image_id", "size"), women=("woman_id", "nunique")).reset_index()
    return found.sort_values("images", ascending=False, kind="stable").reset_index(drop=True)


def samples(predictions: pd.DataFrame) -> pd.DataFrame:
    """Counts the labelled samples of every task, split and kind.

    Args:
        predictions: PREDICTION_COLUMNS of a trial.

    Returns:
        task, split, category, samples, women.
    """
    first = predictions[predictions["draw"].fillna(0) == 0].drop_duplicates(["task", "split", "sample_id"])
    kind = first["category"].astype("object").where(first["category"].notna(), UNKNOWN)
    grouped = first.groupby([first["task"], first["split"], kind], sort=True)
    found = grouped.agg(samples=("sample_id", "size"), women=("woman_id", "nunique"))
    return found.reset_index().rename(columns={"level_2": "category"})


def draw(counted: pd.DataFrame) -> list[go.Figure]:
    """Draws a panel per label: used and left-out images.

    Args:
        counted: from counts().
    """
    drawn = []
    for label, own in counted.groupby("label", sort=False):
        figure = go.Figure()
        for name, column, color, pattern in (("used", "used", style.PALETTE[0], ""),
                                             ("left out", "left_out", style.PALETTE[1], "/")):  # fmt: skip
            figure.add_trace(
                go.Bar(
                    x=own[column], y=[style.plain(value, 24) for value in own["value"]], name=name, orientation="h",
                    marker={"color": color, "pattern": {"shape": pattern}},
                    hovertemplate=f"%{{y}}: %{{x:,}} {name}<extra></extra>",
                )
            )  # fmt: skip
        figure.update_layout(barmode="stack")
        figure.update_yaxes(type="category", autorange="reversed", showgrid=False)
        figure.update_xaxes(title_text="images", nticks=5)
        total = int(own["used"].sum() + own["left_out"].sum())
        caption = f"n = {style.count(total, 'image')}; counts, so that there are no intervals"
        drawn.append(style.finish(figure, str(label), caption, 110 + 28 * len(own)))
    return drawn


def quality(images: pd.DataFrame) -> pd.DataFrame:
    """Selects the registration quality of the pairs.

    Args:
        images: IMAGE_COLUMNS; both images of a pair have the same.

    Returns:
        image_id, woman_id, view, quality, dice, used: a row per pair that was registered, the worst first.
    """
    known = images[
        images["registration_quality"].notna() & (images["laterality"].astype(str).str.lower().str[0] == "l")
    ]
    named = known.rename(columns={"registration_quality": "quality", "registration_dice": "dice"})
    return named[["image_id", "woman_id", "view", "quality", "dice", "used"]].sort_values("quality", kind="stable")


def draw_quality(found: pd.DataFrame) -> go.Figure:
    """Draws the distribution of the registration quality.

    Args:
        found: from quality().
    """
    values = found["quality"].to_numpy(dtype=np.float64)
    edges = np.linspace(min(0.0, float(values.min())), max(1.0, float(values.max())), BINS + 1)
    figure = go.Figure()
    used = found["used"].astype(bool).to_numpy()
    for name, own, color, pattern in (("used", used, style.PALETTE[0], ""), ("left out", ~used, style.PALETTE[1], "/")):
        counted, _ = np.histogram(values[own], bins=edges)
        figure.add_trace(
            go.Bar(
                x=(edges[:-1] + edges[1:]) / 2, y=counted, name=name, width=np.diff(edges),
                marker={"color": color, "pattern": {"shape": pattern}},
                hovertemplate=f"quality %{{x:.2f}}: %{{y}} {name}<extra></extra>",
            )
        )  # fmt: skip
    figure.update_layout(barmode="stack", bargap=0.04)
    figure.update_xaxes(title_text="quality of the registration")
    figure.update_yaxes(title_text="pairs", nticks=5)
    caption = (
        f"n = {style.count(len(found), 'pair')} of {style.count(found['woman_id'].nunique(), 'woman', 'women')}. "
        "Right breast registered onto left; 1 is perfect, higher is better; a description, so that there are no "
        "intervals."
    )
    return style.finish(figure, "Registration quality", caption, 320)


def _in_order(word: object) -> tuple[bool, float, str]:
    """Sorts numbers by size, before words."""
    text = str(word)
    return (not text.isdecimal(), float(text) if text.isdecimal() else 0.0, text)


def _word(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
