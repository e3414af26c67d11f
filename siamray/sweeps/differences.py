"""Configurations of variants go in; of each the options in which they differ come out."""

from collections.abc import Mapping
from typing import Any

from siamray.compose import option_value, options
from siamray.config import AblationConfig, Config


def config_difference(configs: Mapping[str, Config]) -> dict[str, dict[str, Any]]:
    """Leaves out of configurations all that is the same in them.

    Args:
        configs: variant -> its configuration.

    Returns:
        Variant -> {dotted option: its value}: the options that have different values among them, the same ones for
        every variant, in the order of config.py. Ablation and search are not looked at.
    """
    names = [name for name, _, _ in options() if name.split(".")[0] not in ("ablation", "search")]
    values = {variant: {name: option_value(config, name) for name in names} for variant, config in configs.items()}
    differing = [name for name in names if any(of[name] != next(iter(values.values()))[name] for of in values.values())]
    return {variant: {name: of[name] for name in differing} for variant, of in values.items()}


def variant_differences(ablation: AblationConfig, composed: Mapping[str, Config]) -> dict[str, dict[str, Any]]:
    """Says in which options the variants of an ablation differ, and in which a control differs from the reference.

    Args:
        ablation: with all its variants written out.
        composed: variant or control -> its configuration.

    Returns:
        Variant or control -> {dotted option: its value}. Controls are compared one by one, as what they change would
        otherwise stand at every variant.
    """
    variants = config_difference({name: composed[name] for name in ablation.variants})
    reference = composed[ablation.reference]
    controls = {
        name: config_difference({ablation.reference: reference, name: composed[name]})[name]
        for name in ablation.controls
    }
    return {**variants, **controls}
