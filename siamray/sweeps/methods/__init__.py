"""The results of an experiment go in; a methods section for a paper and a reporting checklist come out.

Everything is read from the folder of results; what is not there is said to be not recorded. The headings follow the
topics of CLAIM 2024 (Tejani et al., Radiology: Artificial Intelligence 2024) and TRIPOD+AI (Collins et al., BMJ 2024).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from siamray.sweeps.methods.checklist import Item, make_checklist
from siamray.sweeps.methods.judging import describe_evaluation, describe_limits, describe_statistics
from siamray.sweeps.methods.questions import (
    describe_data,
    describe_design,
    describe_pretraining,
    describe_unit,
    describe_variants,
)
from siamray.sweeps.methods.recorded import Known, Paragraph
from siamray.sweeps.methods.running import (
    describe_compute,
    describe_reproducibility,
    describe_search,
    describe_trials,
    describe_tuning,
)
from siamray.sweeps.results import Results


@dataclass(frozen=True)
class Methods:
    """The methods section of an experiment, and its checklist."""

    name: str
    paragraphs: list[Paragraph]
    checklist: list[Item]


def describe_methods(results: Results) -> Methods:
    """Puts what an experiment did into words that claim no more than its files say.

    Args:
        results: an experiment, however far it got and however old.

    Returns:
        Its methods section.
    """
    known = Known.read(results)
    makers: list[Callable[[Known], Paragraph | None]] = [
        describe_design,
        describe_data,
        describe_unit,
        describe_pretraining,
        describe_variants,
        describe_search,
        describe_tuning,
        describe_trials,
        describe_evaluation,
        describe_statistics,
        describe_compute,
        describe_reproducibility,
        describe_limits,
    ]
    paragraphs = [made for make in makers if (made := make(known)) is not None]
    return Methods(str(results.experiment["name"] or results.path.name), paragraphs, make_checklist(known))


def markdown(methods: Methods) -> str:
    """Writes a methods section as Markdown.

    Args:
        methods: from describe_methods().
    """
    lines = [f"# Methods of {_escaped(methods.name)}", ""]
    for paragraph in methods.paragraphs:
        lines += [f"## {_escaped(paragraph.title)}", "", _escaped(paragraph.text), ""]
        if paragraph.items:
            lines += [*(f"- {_escaped(item)}" for item in paragraph.items), ""]
    lines += ["## Checklist", "", "Topics of CLAIM 2024 and TRIPOD+AI, not their numbering.", ""]
    lines += ["| topic | where it is answered |", "|---|---|"]
    lines += [f"| {_escaped(item.topic)} | {_escaped(item.answer)} |" for item in methods.checklist]
    return "\n".join(lines) + "\n"


def _escaped(words: str) -> str:
    """One line of Markdown that shows a text as it is."""
    return re.sub(r"([\\`*<|])", r"\\\1", " ".join(str(words).split()))
