"""What an experiment recorded goes in; a reporting checklist comes out."""

from dataclasses import dataclass

from siamray.sweeps.methods.recorded import Known, option_of
from siamray.sweeps.methods.wording import NOT_RECORDED

BY_THE_AUTHORS = "not known to siamray: to be filled in by the authors"


@dataclass(frozen=True)
class Item:
    """A topic of the reporting guidelines and where it is answered, or that the authors must answer it."""

    topic: str
    answer: str

    @property
    def open(self) -> bool:
        """Whether the authors must answer it."""
        return self.answer == BY_THE_AUTHORS


def make_checklist(known: Known) -> list[Item]:
    """Topics of the guidelines, each with where it is answered or that the authors must."""

    def at(title: str, present: bool = True) -> str:
        return title if present else f"{title}: {NOT_RECORDED}"

    data, config = known.record["data"] or {}, known.config
    compared = len(known.compared) > 0
    trials = known.trials
    return [
        Item("Title and abstract: study identified as one of AI, structured summary", BY_THE_AUTHORS),
        Item("Clinical background, intended use and users", BY_THE_AUTHORS),
        Item("Objective", at("Question and design", bool(known.record["question"]))),
        Item("Prospective or retrospective study, registration, protocol", BY_THE_AUTHORS),
        Item("Ethics approval and informed consent", BY_THE_AUTHORS),
        Item("Data source", at("Data and participants", bool(data.get("source")))),
        Item("Setting, centres and dates of the exams; eligibility of the women", BY_THE_AUTHORS),
        Item("Age, ethnicity and other demographic and clinical data of the women, per split", BY_THE_AUTHORS),
        Item("Acquisition: vendors and detectors", BY_THE_AUTHORS),
        Item("De-identification", BY_THE_AUTHORS),
        Item("Missing and excluded images", "manifest.parquet of the prepared exams, with a reason for each"),
        Item("Preprocessing", at("Data and participants", bool(option_of(config, "preparation")))),
        Item("Reference standard: definition, who annotated, agreement of readers", BY_THE_AUTHORS),
        Item("Splits, and the level at which they are disjoint", at("Data and participants; Unit of analysis",
                                                                   bool(data.get("women")))),
        Item("Sample size: calculation beforehand", BY_THE_AUTHORS),
        Item("Sample size: what it could show", at("Statistics (detectable difference)", compared)),
        Item("Model, initial weights, training", at("Pretraining; Variants", bool(config))),
        Item("Choice of options and of the final model",
             "Search" if known.is_search else "Pretraining; Evaluation; Tuning, where there is one"),
        Item("Randomness: seeds and failed runs", at("Seeds and trials", bool(known.record["seeds"]))),
        Item("Metrics of performance", at("Evaluation", bool(known.metric))),
        Item("Intervals, tests and correction for many comparisons", at("Statistics", compared)),
        Item("Robustness and sensitivity", at("Variants", not known.is_search and len(known.record["variants"]) > 1)),
        Item("Fairness: performance in groups of women", BY_THE_AUTHORS),
        Item("Explanation of single answers", "maps and extreme pairs in report.html, where they were kept"),
        Item("External test data", BY_THE_AUTHORS),
        Item("Estimates with their precision", at("comparison.parquet and report.html", compared)),
        Item("Failure analysis", "lesions missed and false alarms in report.html, where they were kept"),
        Item("Compute and hardware", at("Compute", any(trial.get("environment") for trial in trials))),
        Item("Software, code and how to run it again", at("Software and reproducibility",
                                                          bool(known.record["versions"]))),
        Item("Availability of data, code and encoder", BY_THE_AUTHORS),
        Item("Limits", "Limits; what they mean for practice: by the authors"),
        Item("Patient and public involvement", BY_THE_AUTHORS),
        Item("Funding and conflicts of interest", BY_THE_AUTHORS),
    ]  # fmt: skip
