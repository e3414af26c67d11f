"""What variants are worth over several tasks and data sets in, one self-contained page out."""

from pathlib import Path

from dashboards import page
from dashboards.figures import means, profiles, ranks, style
from siamray.sweeps.across import Across
from siamray.sweeps.metric_words import metric_name
from siamray.sweeps.results import write_bytes


def write_page(found: Across, out: Path) -> Path:
    """Writes the page.

    Args:
        found: over some experiments.
        out: the file.

    Returns:
        The file.

    Raises:
        UserError: the folder cannot be written to.
    """
    write_bytes(out, across(found).encode("utf-8", "replace"))
    return out


def across(found: Across) -> str:
    """Makes the page.

    Args:
        found: over some experiments.

    Returns:
        The page, as HTML.
    """
    variants = [str(name) for name in found.means["variant"]]
    looks = style.looks([name for name in variants if name not in found.controls], found.controls)
    drawn = (
        f"{100 * found.confidence:g} % intervals, bootstrap over women and seeds, the same for all variants, "
        "stratified by "
        "data set"
    )
    sets = style.count(len(found.experiments), "data set")
    title = f"{', '.join(found.experiments)}: over {style.count(len(found.tasks), 'task')}"
    head = (
        f'<header><p class="eyebrow">siamray, across tasks</p><h1>{page.text(title)}</h1>'
        f'<p class="question">What are the variants worth over {style.count(len(found.tasks), "task")} of {sets}?</p>'
        '<p class="disclaimer">A task is a metric on a data set. Research software, no diagnosis.</p></header>'
    )
    of_means = means.draw(means.data(found.means), looks, drawn)
    of_profiles = profiles.draw(profiles.data(found.profiles), looks, drawn)
    words = (
        "Scores are (metric - chance) / (1 - chance). The interquartile mean is the mean of the middle half of all "
        "runs of "
        "all tasks (Agarwal et al. 2021): less moved by one easy task than the mean. Metrics of one encoder are not "
        "independent: the bootstrap draws women and seeds for all of them alike."
    )
    notes = [*dict.fromkeys(note for note in found.means["note"] if note), *found.notes]
    parts = [
        page.section(
            "Interquartile means", page.figure(of_means, "means", titled=False), _table(found, looks), page.note(words),
            *(page.note(f"{note[0].upper()}{note[1:]}.") for note in notes),
        ),
        page.section("Performance profiles", page.figure(of_profiles, "profiles", titled=False)),
        _ranks(found, looks),
        page.section("Tasks", _tasks(found)),
    ]  # fmt: skip
    foot = "<footer>Made by siamray, research software: not a medical device, not for diagnosis.</footer>"
    return page.page(f"{title}, siamray", head, *parts, foot)


def _table(found: Across, looks: dict[str, style.Look]) -> str:
    lines: list[list[str]] = []
    for control in (False, True):
        group = [row for row in style.records(found.means) if (row["variant"] in found.controls) == control]
        if group:
            lines.append([f"<em>{'Controls' if control else 'Variants'}</em>"])
        for row in group:
            effect = style.interval(row["effect"], row["effect_low"], row["effect_high"], sign=True)
            lines.append(
                [
                    page.key(style.look_of(str(row["variant"]), looks).color) + page.text(row["variant"]),
                    style.interval(row["value"], row["low"], row["high"]),
                    "reference" if row["variant"] == found.reference else effect,
                    style.whole(row["tasks"]),
                    style.whole(row["seeds"]),
                ]
            )
    return page.table(["", "value [interval]", f"difference from {found.reference}", "tasks", "seeds"], lines)


def _ranks(found: Across, looks: dict[str, style.Look]) -> str:
    if found.ranking is None:
        return page.section("Mean ranks", page.note(f"None are given: {found.unranked}."))
    drawn = ranks.draw(found.ranking, found.ranked_by, looks, 1 - found.confidence)
    return page.section("Mean ranks", page.figure(drawn, "ranks", titled=False))


def _tasks(found: Across) -> str:
    lines = [
        [
            page.text(row["experiment"]),
            page.text(metric_name(str(row["metric"]))),
            *(style.whole(row[key]) for key in ("women", "seeds", "folds")),
        ]
        for row in style.records(found.tasks)
    ]
    return page.table(["data set", "metric", "test women", "seeds", "folds"], lines, words=[1])
