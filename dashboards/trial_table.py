"""A table of many trials goes in; the rows that a browser asks for come out, sorted and filtered on this side."""

import json
import operator
from collections.abc import Callable
from typing import Any

import dash_ag_grid as dag
import pandas as pd

BLOCK = 100
"""Rows that a browser gets at once."""

_WORD_TESTS: dict[str, Callable[[pd.Series, str], pd.Series]] = {
    "contains": lambda words, asked: words.str.contains(asked, case=False, regex=False),
    "notContains": lambda words, asked: ~words.str.contains(asked, case=False, regex=False),
    "equals": lambda words, asked: words.str.lower() == asked.lower(),
    "notEqual": lambda words, asked: words.str.lower() != asked.lower(),
    "startsWith": lambda words, asked: words.str.lower().str.startswith(asked.lower()),
    "endsWith": lambda words, asked: words.str.lower().str.endswith(asked.lower()),
}
_NUMBER_TESTS: dict[str, Callable[[Any, float], Any]] = {
    "equals": operator.eq,
    "notEqual": operator.ne,
    "lessThan": operator.lt,
    "lessThanOrEqual": operator.le,
    "greaterThan": operator.gt,
    "greaterThanOrEqual": operator.ge,
}


def component(frame: pd.DataFrame, experiment: str, name: str, state: dict[str, str]) -> dag.AgGrid:
    """Makes the table; its rows are asked for as they come into sight.

    Args:
        frame: the trials, trial_id among the columns.
        experiment: its name, for the links to the trials.
        name: id of the table.
        state: of the address: ``filter`` and ``sort`` of the table.
    """
    sort, _, direction = state.get("sort", "").partition(":")
    columns = [
        _column(str(column), frame[column], experiment) | ({"sort": direction or "asc"} if str(column) == sort else {})
        for column in frame
    ]
    colors = {
        "backgroundColor": "var(--page)", "foregroundColor": "var(--ink)", "borderColor": "var(--line)",
        "headerBackgroundColor": "var(--field)", "headerTextColor": "var(--ink)", "accentColor": "var(--accent)",
        "chromeBackgroundColor": "var(--field)", "menuBackgroundColor": "var(--page)",
        "inputBackgroundColor": "var(--page)", "inputTextColor": "var(--ink)", "oddRowBackgroundColor": "var(--page)",
        "fontFamily": "inherit",
    }  # fmt: skip
    return dag.AgGrid(
        id=name,
        columnDefs=columns,
        defaultColDef={"sortable": True, "resizable": True, "floatingFilter": True, "minWidth": 96},
        rowModelType="infinite",
        filterModel=_filters(state.get("filter", ""), frame),
        dashGridOptions={
            "theme": {"function": f"themeQuartz.withParams({json.dumps(colors)})"},
            "cacheBlockSize": BLOCK, "maxBlocksInCache": 8, "rowBuffer": 10, "infiniteInitialRowCount": 1,
            "enableCellTextSelection": True, "ensureDomOrder": True, "suppressFieldDotNotation": True,
            "animateRows": False, "rowHeight": 34,
        },
        style={"height": f"{min(620, 118 + 34 * max(3, len(frame)))}px", "width": "100%"},
    )  # fmt: skip


def rows(frame: pd.DataFrame, request: dict[str, Any]) -> dict[str, Any]:
    """Answers a request for rows.

    Args:
        frame: the trials.
        request: startRow, endRow, sortModel and filterModel, as AG Grid writes them; what is not as it writes it is
            passed over.

    Returns:
        rowData and rowCount.
    """
    shown = filtered(frame, request.get("filterModel") or {})
    order = [part for part in request.get("sortModel") or [] if part.get("colId") in shown]
    if order:
        shown = shown.sort_values(
            [part["colId"] for part in order],
            ascending=[part.get("sort") != "desc" for part in order],
            kind="stable", na_position="last",
        )  # fmt: skip
    start, end = (max(0, int(request.get(name) or 0)) for name in ("startRow", "endRow"))
    part = shown.iloc[start : min(end or start + BLOCK, start + 5 * BLOCK)]
    return {"rowData": json.loads(part.to_json(orient="records", double_precision=10)), "rowCount": len(shown)}


def filtered(frame: pd.DataFrame, model: dict[str, Any]) -> pd.DataFrame:
    """Leaves the rows that pass all filters.

    Args:
        frame: the trials.
        model: column -> a filter as AG Grid writes it.
    """
    kept = pd.Series(True, index=frame.index)
    for column, rule in model.items():
        if column in frame and isinstance(rule, dict):
            kept &= _passes(frame[column], rule)
    return frame[kept]


def _passes(values: pd.Series, rule: dict[str, Any]) -> pd.Series:
    conditions = rule.get("conditions")
    if isinstance(conditions, list) and conditions:
        tests = [_passes(values, part) for part in conditions if isinstance(part, dict)]
        together = tests[0]
        for test in tests[1:]:
            together = together | test if rule.get("operator") == "OR" else together & test
        return together
    kind = str(rule.get("type"))
    if kind in ("blank", "notBlank"):
        absent = values.isna() | (values.astype("object") == "")
        return absent if kind == "blank" else ~absent
    if pd.api.types.is_numeric_dtype(values):
        numbers = values.astype("float64")
        low, high = (_number(rule.get(name)) for name in ("filter", "filterTo"))
        if kind == "inRange":
            return numbers.between(low, high)
        if kind in _NUMBER_TESTS:
            passed: pd.Series = _NUMBER_TESTS[kind](numbers, low)
            return passed
    elif kind in _WORD_TESTS:
        words = values.astype("object").where(values.notna(), "").astype(str)
        return _WORD_TESTS[kind](words, str(rule.get("filter", "")))
    return pd.Series(True, index=values.index)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def _column(name: str, values: pd.Series, experiment: str) -> dict[str, Any]:
    number = pd.api.types.is_numeric_dtype(values)
    column: dict[str, Any] = {
        "field": name,
        "headerName": name,
        "headerTooltip": name,
        "filter": "agNumberColumnFilter" if number else "agTextColumnFilter",
    }
    if name == "trial_id":
        column |= {"cellRenderer": "TrialLink", "cellRendererParams": {"experiment": experiment},
                   "width": 290, "headerName": "trial"}  # fmt: skip
    elif number:
        column |= {"type": "rightAligned", "width": 130}
        if pd.api.types.is_float_dtype(values):
            column["valueFormatter"] = {"function": "shortNumber(params.value)"}
    else:
        column |= {"width": 150, "tooltipField": name}
    return column


def _filters(text: str, frame: pd.DataFrame) -> dict[str, Any]:
    try:
        model = json.loads(text) if text else {}
    except ValueError:
        return {}
    return {name: rule for name, rule in model.items() if name in frame} if isinstance(model, dict) else {}
