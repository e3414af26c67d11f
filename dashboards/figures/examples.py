"""Example exams of a trial in, the left image, the registered right one and the map of their distances out."""

import base64
import math
from collections.abc import Callable
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
from PIL import Image

from dashboards.figures import style

CELL_COLUMNS = ["row", "col", "distance"]
LONGEST_SIDE = 640
_SIDE_COLORS = {"left": "#56B4E9", "right": "#E69F00"}


def data(maps: pd.DataFrame, cell: int) -> pd.DataFrame:
    """Spreads the distances of overlapping patches over a grid of cells.

    Args:
        maps: MAP_COLUMNS of one entry: centres (row, col) and side (size) of the patches in pixels of the pictures.
        cell: side of a cell in pixels of the pictures.

    Returns:
        CELL_COLUMNS: centre of a cell in pixels of the pictures, mean distance of the patches whose central half covers
        it; cells that none covers are left out.
    """
    totals: dict[tuple[int, int], tuple[float, int]] = {}
    for row, col, size, distance in maps[["row", "col", "size", "distance"]].itertuples(index=False):
        if not math.isfinite(distance):
            continue
        # The central half only: a patch says most of its centre, and its rim would paint what is not breast.
        for i in _cells(row - size / 4, row + size / 4, cell):
            for j in _cells(col - size / 4, col + size / 4, cell):
                total, n = totals.get((i, j), (0.0, 0))
                totals[i, j] = (total + distance, n + 1)
    rows = [((i + 0.5) * cell, (j + 0.5) * cell, total / n) for (i, j), (total, n) in sorted(totals.items())]
    return pd.DataFrame(rows, columns=CELL_COLUMNS)


def draw(
    left: Path,
    right: Path,
    maps: pd.DataFrame,
    boxes: pd.DataFrame,
    limits: tuple[float, float],
    picture: Callable[[Path], tuple[str, tuple[int, int]]] | None = None,
    quantity: str = "distance",
    opacity: float = 0.5,
) -> list[go.Figure]:
    """Draws three panels of one exam and view.

    Args:
        left: PNG of the left image.
        right: PNG of the right image, registered onto the left one.
        maps: MAP_COLUMNS of this entry.
        boxes: BOX_COLUMNS of this entry.
        limits: distances at the ends of the colour scale, common to all entries.
        picture: gives where a page finds a picture, and its shape; None writes it into the figure.
        quantity: what ``maps.distance`` is.
        opacity: of the map, 0 to 1.
    """
    place = picture or embedded
    left_source, shape = place(left)
    right_source, _ = place(right)
    cell = max(4, round(float(maps["size"].median()) / 8)) if len(maps) else 8
    cells = data(maps, cell)
    return [
        _panel("left", left_source, shape, boxes[boxes["side"] == "left"]),
        _panel("right, registered onto the left", right_source, shape, boxes[boxes["side"] == "right"]),
        _panel(f"{quantity} of {len(maps):,} pairs", left_source, shape, boxes, cells, limits, opacity),
    ]


def _panel(
    title: str,
    source: str,
    shape: tuple[int, int],
    boxes: pd.DataFrame,
    cells: pd.DataFrame | None = None,
    limits: tuple[float, float] = (0.0, 1.0),
    opacity: float = 0.5,
) -> go.Figure:
    height, width = shape
    figure = go.Figure()
    figure.add_layout_image(
        source=source, x=0, y=0, sizex=width, sizey=height, xref="x", yref="y", sizing="stretch", layer="below"
    )
    if cells is not None and len(cells):
        grid = cells.pivot(index="row", columns="col", values="distance")
        rows, cols = _filled(grid.index), _filled(grid.columns)
        figure.add_trace(
            go.Heatmap(
                x=cols, y=rows, z=grid.reindex(index=rows, columns=cols), colorscale="Viridis", opacity=opacity,
                zmin=limits[0], zmax=limits[1],
                hoverongaps=False, hovertemplate="row %{y:.0f}, col %{x:.0f}: %{z:.3f}<extra></extra>",
                colorbar={
                    "orientation": "h", "thickness": 8, "y": 0, "yanchor": "top", "ypad": 4, "len": 0.9, "nticks": 4
                },
            )
        )  # fmt: skip
    else:
        figure.add_trace(go.Scatter(x=[0, width], y=[0, height], mode="none", hoverinfo="skip"))
    for box in style.records(boxes):
        if box["row_min"] == box["row_min"]:
            color = _SIDE_COLORS.get(str(box["side"]), style.NEUTRAL)
            figure.add_shape(
                type="rect", x0=box["col_min"], x1=box["col_max"], y0=box["row_min"], y1=box["row_max"],
                line={"color": color, "width": 2.5, "dash": "solid" if box["side"] == "left" else "dash"},
            )  # fmt: skip
            figure.add_annotation(
                x=box["col_min"], y=box["row_min"], text=style.plain(f"{box['category']}, {box['side']}", 28),
                showarrow=False, font={"color": color, "size": 11}, xanchor="left", yanchor="bottom",
                bgcolor="rgba(0,0,0,0.55)",
            )  # fmt: skip
    figure.update_xaxes(visible=False, range=[0, width], constrain="domain")
    figure.update_yaxes(visible=False, range=[height, 0], scaleanchor="x", constrain="domain")
    figure.update_layout(showlegend=False)
    style.finish(figure, title, "", 400)
    return figure.update_layout(margin={"l": 4, "r": 4, "t": 4, "b": 44})


def _cells(low: float, high: float, cell: int) -> range:
    """The cells whose centre lies in low <= centre < high and in the image."""
    return range(max(0, math.ceil(low / cell - 0.5)), max(0, math.ceil(high / cell - 0.5)))


def _filled(values: pd.Index) -> list[float]:
    """All cell centres from the first to the last: a gap in the map must stay a gap in the picture."""
    ordered = sorted(float(value) for value in values)
    step = min((b - a for a, b in pairwise(ordered)), default=1.0)
    return [ordered[0] + step * i for i in range(round((ordered[-1] - ordered[0]) / step) + 1)]


def embedded(path: Path) -> tuple[str, tuple[int, int]]:
    """Gives a picture as a data URI, scaled down to what a page shows, and its shape (rows, cols) before that."""
    with Image.open(path) as picture:
        shape = (picture.height, picture.width)
        small = picture.convert("L")
    small.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    buffer = BytesIO()
    small.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode(), shape
