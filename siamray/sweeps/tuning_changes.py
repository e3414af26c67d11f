"""The settings that variants tried go in; what tuning changed comes out.

The dashboards import it, so it imports no torch, ray or hydra.
"""

import math

import pandas as pd

COLUMNS = ["variant", "fold", "tried", "failed", "own", "settings", "value", "test", "own_value", "own_test"]


def tuning_changes(tuning: pd.DataFrame) -> pd.DataFrame:
    """Puts what was chosen for each variant and fold beside its own setting.

    Args:
        tuning: TUNING_COLUMNS.

    Returns:
        COLUMNS, a row per variant and fold: ``own`` says whether its own setting was chosen; own_value and own_test are
        NaN where that was not tried, or failed.
    """
    found = []
    for (variant, fold), group in tuning.groupby(["variant", "fold"], sort=False):
        chosen = group[group["chosen"]].iloc[0]
        own = group[group["own"]]
        found.append(
            {
                "variant": variant,
                "fold": fold,
                "tried": len(group),
                "failed": int((group["state"] == "failed").sum()),
                "own": bool(chosen["own"]),
                "settings": chosen["settings"],
                "value": float(chosen["value"]),
                "test": float(chosen["test"]),
                "own_value": float(own["value"].iloc[0]) if len(own) else math.nan,
                "own_test": float(own["test"].iloc[0]) if len(own) else math.nan,
            }
        )
    return pd.DataFrame(found, columns=COLUMNS)
