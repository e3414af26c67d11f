"""Results in, their methods section and reporting checklist out, as HTML."""

from dashboards import page
from siamray.sweeps.methods import Methods, describe_methods
from siamray.sweeps.results import Results


def section(results: Results) -> str:
    """Shows the methods of an experiment, as `siamray.sweep export out=methods.md` writes them.

    Args:
        results: an experiment as read from disk.
    """
    methods = describe_methods(results)
    words = (
        "Written from the files of the results alone, for a paper to take over. The checklist has the topics of CLAIM "
        "2024 "
        f"and TRIPOD+AI; {sum(item.open for item in methods.checklist)} of {len(methods.checklist)} are left to the "
        "authors."
    )
    return page.section("Methods", page.note(words), *_paragraphs(methods), _checklist(methods))


def _paragraphs(methods: Methods) -> list[str]:
    parts = []
    for paragraph in methods.paragraphs:
        items = "".join(f"<li>{page.text(item)}</li>" for item in paragraph.items)
        listed = f'<ul class="plain">{items}</ul>' if items else ""
        parts.append(f'<h3>{page.text(paragraph.title)}</h3><p class="prose">{page.text(paragraph.text)}</p>{listed}')
    return parts


def _checklist(methods: Methods) -> str:
    lines = [
        [page.text(item.topic), f"<em>{page.text(item.answer)}</em>" if item.open else page.text(item.answer)]
        for item in methods.checklist
    ]
    return page.folded("Checklist", page.table(["topic", "where it is answered"], lines, words=[1]))
