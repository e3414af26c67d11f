"""What lies on disk after a sweep: the files of an experiment, and their keys and columns, one by one.

<results>/<experiment>/
    experiment.json       what was asked: see EXPERIMENT_KEYS
    trials.parquet        one row per trial: see TRIAL_COLUMNS; its metadata say what each row was read from
    comparison.parquet    one row per variant and metric: see COMPARISON_COLUMNS
    .lock                 held by the driver that runs, names its process
    effects.parquet       of a factorial: one row per main effect and interaction: see EFFECT_COLUMNS
    importance.parquet    of a search with enough trials: one row per objective, method and option: see
                          IMPORTANCE_COLUMNS
    selection.parquet     of a search: one row per setting: see SELECTION_COLUMNS
    uncommitted-HASH.diff   changes of siamray's own code beyond the commit, where there were any and they are small;
                          HASH: the first 12 digits of diff_sha256
    tuning.parquet        of an ablation that tunes: one row per setting: see TUNING_COLUMNS
    images.parquet        one row per image that preparation saw: see IMAGE_COLUMNS
    report.html           written by dashboards.report
    trials/<trial_id>/
        epochs.parquet        one row per epoch and network: see EPOCH_COLUMNS
        validation.parquet    of a search that stops trials early, one row per look: see VALIDATION_COLUMNS
        distances.parquet     one row per epoch and network: see DISTANCE_COLUMNS
        predictions.parquet   one row per task, score, draw and sample: see PREDICTION_COLUMNS
        examples/             <entry_id>_left.png, <entry_id>_right.png, maps.parquet, boxes.parquet of some test exams;
                              maps_epochN.parquet: the maps as they were after N epochs, 0 = before the training;
                              pairs.parquet, pairs.png: the pairs that the distance tells best and worst;
                              features.parquet: a map of the features, see FEATURE_COLUMNS
        encoder/              the exported encoder
        trial.json            written last: a trial without it does not exist; see TRIAL_KEYS
"""

from typing import Any

SCHEMA = 1

POWER = 0.8
"""The chance with which ``detectable`` differences are found: the usual one (Cohen 1988, section 2.4)."""

EXPERIMENT_FILE = "experiment.json"
TRIAL_FILE = "trial.json"
TRIALS_FILE = "trials.parquet"
EFFECTS_FILE = "effects.parquet"
IMPORTANCE_FILE = "importance.parquet"
COMPARISON_FILE = "comparison.parquet"
SELECTION_FILE = "selection.parquet"
TUNING_FILE = "tuning.parquet"
VALIDATION_FILE = "validation.parquet"
IMAGES_FILE = "images.parquet"
FEATURES_FILE = "features.parquet"
REPORT_FILE = "report.html"
TRIALS_FOLDER = "trials"
EXAMPLES_FOLDER = "examples"
EPOCH_MAPS = "maps_epoch"

EXPERIMENT_KEYS: dict[str, Any] = {
    "name": "",  # the folder's name
    "kind": "ablation",  # ablation or search
    "question": "",  # what is asked, one sentence
    "reference": None,  # the variant the others are compared with
    "metric": None,  # the primary metric; of a search: its first objective
    "objectives": {},  # of a search: metric -> maximize or minimize
    "variants": {},  # name -> list of its overrides; of a search: "searched" -> the options it varies
    "controls": {},  # name -> list of its overrides
    "design": {},  # DESIGN_KEYS: what made the variants
    "settings": {},  # variant -> {factor: level}; neither factors that do not matter to it, nor lone variants
    "differences": {},  # variant -> {option: value} where variants differ; control -> the same, from the reference
    "seeds": [],  # the seeds of every variant
    "folds": [],  # the folds tested in turn
    "base_overrides": [],  # overrides common to all variants
    "created": None,  # ISO 8601 time
    "command": None,  # the command line
    "data": {},  # source, store_fingerprint, women: {training, validation, test: number of women}
    "versions": {},  # package -> version
    "git": {},  # commit, dirty (uncommitted changes), diff_sha256 (of uncommitted changes to the code itself)
    "environment": {},  # of the driver: platform, cpu (model), cpus (of the machine), gpus (names)
    "planned": None,  # of a search: the number of trials that shall finish; of an ablation that tunes: of all trials
    "tuning": {},  # TUNING_KEYS, of an ablation that tunes
    "search": {},  # of a search: all its options, by their names in config.SearchConfig
    "trials": None,  # the trial ids that belong to it: folders of other ids are not read; None = all folders belong
}
"""Keys of experiment.json and what stands for a missing one; ``schema`` is added on writing."""

DESIGN_KEYS: dict[str, Any] = {
    "kind": "list",  # list, one_factor, leave_one_out, add_one_in, factorial
    "factors": {},  # factor or component -> its levels, the reference's first; a component has on and off
    "only_if": {},  # factor -> {another factor: its levels} without which it is not crossed
    "skipped": [],  # combinations left out: {factor: level}
    "fraction": 1,  # one in so many combinations is run
    "resolution": None,  # of a fraction: 3 and more
    "generators": {},  # of a fraction: factor -> the factors whose product it follows
    "aliases": [],  # of a fraction: groups of effects that are estimated as one, each effect a list of factors
}
"""Keys of the design of an experiment.json that has one; older ones have none."""

TUNING_KEYS: dict[str, Any] = {
    "settings": 0,  # that every variant and control tries on each fold
    "metric": None,  # on validation women, by which one is chosen
    "sampler": None,
    "seed": None,  # of the trials that tune
    "parameters": {},  # option -> where it may lie
    "chosen": {},  # variant -> fold -> the words of the setting that is compared
    "untuned": {},  # variant or control that is not tuned -> why
}
"""Keys of the tuning of an experiment.json that has one."""

TUNING_SUFFIX = "+tuning"
"""Ends the variant of a trial that tunes: it is none of those that are compared."""

TRIAL_KEYS: dict[str, Any] = {
    "trial_id": None,  # equals the folder's name
    "variant": None,
    "seed": None,
    "fold": 0,
    "state": None,  # finished, failed, or pruned: stopped early by a search, so without metrics
    "reason": "",  # why it failed or when it was stopped, one line
    "config": {},  # the resolved configuration
    "metrics": {},  # name -> {value, low, high} or a number; null = not a number
    "notes": [],  # per task and score: what was chosen, left out, or replaced by a fallback
    "cost": {},  # COST_COLUMNS: seconds
    "batch_pairs": None,  # pairs per step of the optimiser, over all workers, as it came out; None = not trained
    "git": {},  # as of the experiment
    "versions": {},
    "code": None,  # hash of the code that decides the numbers
    "shared_from": None,  # <experiment>/<trial_id> that was trained and evaluated for it, None = it was itself
    "environment": {},  # where it ran: platform, cpu, cpus, gpus; threads (of each process that trains)
    "data_fingerprint": None,
    "started": None,  # ISO 8601 times
    "ended": None,
}
"""Keys of trial.json and what stands for a missing one; trial_id, variant, seed and state must be there."""

COST_COLUMNS = ["wall_s", "cpu_s", "gpu_s", "pretrain_s", "evaluate_s"]

TRIAL_COLUMNS = ["trial_id", "variant", "role", "seed", "fold", "state", "reason", "started", "ended"]
"""First columns of trials.parquet.

``role`` is variant, control, tuning (chose a setting and is not compared), or "" where unknown; ``state`` is finished,
failed, pruned, or broken (unreadable: ``reason`` says why). COST_COLUMNS follow and, for every metric m, ``m``,
``m_low``, ``m_high``: the value and the ends of its interval, NaN where there is none.
"""

COMPARISON_COLUMNS: dict[str, str] = {
    "variant": "str",  # whose row it is
    "role": "str",  # variant or control
    "reference": "str",  # the variant it is compared with
    "metric": "str",
    "value": "float64",  # mean over seeds and folds, with the ends of its interval
    "value_low": "float64",
    "value_high": "float64",
    "effect": "float64",  # value minus the reference's, paired over women and seeds; NaN for the reference itself
    "effect_low": "float64",
    "effect_high": "float64",
    "p": "float64",  # two-sided, uncorrected
    "p_holm": "float64",  # Holm-corrected over the family; NaN outside of it
    "effect_size": "float64",  # the effect in standard deviations of one woman with one seed (Hedges' g)
    "improvement": "float64",  # chance that a run beats the reference's of its seed and fold, with its interval
    "improvement_low": "float64",
    "improvement_high": "float64",
    "detectable": "float64",  # true difference that would be found with a chance of .8, Holm's correction included
    "equivalence_margin": "float64",  # effects within +- it count as no difference; NaN where not asked
    "p_equivalence": "float64",  # two one-sided tests that the effect lies within the margin, uncorrected
    "p_equivalence_holm": "float64",  # the same, Holm-corrected over the family
    "seeds": "Int64",  # numbers of seeds, folds, women, lesion patches, normal patches
    "folds": "Int64",
    "women": "Int64",
    "lesions": "Int64",
    "normals": "Int64",
    "verdict": "str",  # the answer in words
    "cost_wall_s": "float64",  # mean wall seconds per trial
    "note": "str",  # what to mind when reading the row; "" where nothing
}
"""Columns of comparison.parquet and their types."""

SELECTION_COLUMNS: dict[str, str] = {
    "number": "Int64",  # Optuna's number of the trial
    "trial_id": "str",  # folder of the trial; "" of one that another experiment lent
    "state": "str",  # complete, pruned or failed
    "settings": "str",  # what was drawn, as words of a command line
    "front": "bool",  # no other complete trial is better in one objective and as good in all
    "winner": "bool",  # the one that is confirmed
    "epoch": "Int64",  # the last epoch at which a pruner looked at it
    "source": "str",  # experiment and trial that it was taken from; "" where it was run here
    "reason": "str",  # why it failed or was stopped
}
"""First columns of selection.parquet; a column of every objective follows, NaN unless the trial is complete."""

TUNING_COLUMNS: dict[str, str] = {
    "variant": "str",  # variant or control that it was tried for
    "fold": "Int64",
    "number": "Int64",  # the first is 0
    "trial_id": "str",  # "" of one that its options make impossible
    "state": "str",  # finished or failed
    "settings": "str",  # what was tried, as words of a command line
    "own": "bool",  # it is how the variant is without tuning
    "chosen": "bool",  # it is compared
    "value": "float64",  # the metric that chooses, on validation women; NaN unless finished
    "test": "float64",  # the primary metric on test women, by the same trial; it chooses nothing
    "reason": "str",  # why it failed
}
"""Columns of tuning.parquet."""

VALIDATION_COLUMNS = ["epoch", "metric", "value"]
"""Columns of validation.parquet: epochs done, and the objective on validation women then."""

EFFECT_COLUMNS = [
    *("kind", "term", "contrast"),  # main or interaction; the factors; the levels that are compared
    *("effect", "effect_low", "effect_high"),  # with the ends of its interval, in units of the primary metric
    *("p", "p_holm"),  # two-sided; Holm-corrected over the main effects, or over the interactions
    *("detectable", "effect_size"),  # as in comparison.parquet
    *("seeds", "folds", "women", "note"),
]
"""Columns of effects.parquet: effects of the factors on the primary metric, averaged over the other factors. A row
without an effect stands for all of its kind that the trials do not tell; its note says why."""

IMPORTANCE_COLUMNS = [
    *("objective", "method"),  # metric; fANOVA (share of the variance) or PED-ANOVA (for being among the best)
    *("option", "importance", "low", "high"),  # with the ends of its interval
    *("trials", "note"),  # complete trials that have the option
]
"""Columns of importance.parquet."""

EPOCH_COLUMNS = [
    *("epoch", "network"),  # counted from 0; A or B
    *("loss", "contrastive", "cross", "anti_collapse"),  # the loss and its terms
    *("label_mean", "usable", "separation", "bic_gain"),  # mean soft label; whether the mixture was usable, Ashman's D
    *("d_q01", "d_q05", "d_q25", "d_q50", "d_q75", "d_q95", "d_q99"),  # quantiles of the raw distances
    *("embedding_deviation", "effective_rank", "agreement"),  # of the embeddings; of the two networks' labels
    *("learning_rate", "seconds"),
]
"""Columns of epochs.parquet; further columns are kept."""

DISTANCE_COLUMNS = ["epoch", "network", "edges", "counts", "weights", "means", "deviations", "usable"]
"""Columns of distances.parquet: the histogram of the pair distances (edges: n + 1 numbers, counts: n) and the mixture
fitted to them (weights, means, deviations: one number per component; empty where none was fitted)."""

PREDICTION_COLUMNS = [
    *("task", "score", "split"),
    *("woman_id", "sample_id", "entry_id", "side"),
    *("label", "value"),  # 0 or 1, or the rank of the class; the score given to the sample, higher = more abnormal
    *("category", "density", "view"),  # category: of the finding, or the class of the breast, exam or woman
    *("draw", "note"),  # which draw of a part of the training women, 0 = the first; what was chosen or left out
    *("classes", "probabilities"),  # lists: the classes of the task in their order, and their probabilities; or null
]
"""Columns of predictions.parquet."""

MAP_COLUMNS = ["entry_id", "woman_id", "row", "col", "size", "distance"]
"""Columns of examples/maps.parquet (of the last epoch) and examples/maps_epochN.parquet: centre and side of a patch in
pixels of the pictures, and the distance of its pair."""

BOX_COLUMNS = ["entry_id", "side", "category", "row_min", "col_min", "row_max", "col_max"]
"""Columns of examples/boxes.parquet: findings in pixels of the pictures, half-open."""

PAIR_COLUMNS = ["kind", "sample_id", "woman_id", "entry_id", "side", "category", "distance"]
"""Columns of examples/pairs.parquet: kind is missed (a lesion patch of small distance), false alarm (a normal patch of
large distance) or found (a lesion patch of large distance); row i is the i-th pair of pairs.png from above."""

FEATURE_COLUMNS = [
    *("sample_id", "woman_id", "entry_id", "side", "label", "category", "split", "density", "view"),
    *("source", "vendor", "site"),  # data set, manufacturer and centre of the sample's own image; null where unknown
    *("x", "y"),  # first two principal components of the features of the sample's own side
    *("x_share", "y_share"),  # share of the variance of each, the same in all rows
    "components",  # list of the first 30 of them, of at most 500 samples, the same ones in all trials; else null
]
"""Columns of examples/features.parquet: the patches of test women on a map of the encoder's features."""

IMAGE_COLUMNS = [
    *("image_id", "woman_id", "exam_id", "laterality", "view"),
    *("used", "reason", "note"),  # whether it is in the prepared exams, why not, and what is odd about it
    *("spacing_mm", "birads", "density", "outcome", "vendor", "site"),  # null where the source does not know
    *("registration_kind", "registration_dice", "registration_correlation", "registration_quality"),  # of its pair
    *("registration_fell_back", "registration_outline_mm"),
]
"""Columns of images.parquet: what became of every image, as the manifest of the prepared exams says, without paths."""
