"""Every option of siamray, once: its name, type, default with its reason, and what it may be."""

from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional

from omegaconf import MISSING


def option(
    default: Any,
    meaning: str,
    *,
    choices: tuple[str, ...] | None = None,
    low: float | None = None,
    high: float | None = None,
) -> Any:
    """Declares one option of a configuration dataclass.

    Args:
        default: the default value; lists and dictionaries are copied for every instance.
        meaning: one line for ``--help``: what it is, its unit, and the reason of the default.
        choices: the allowed words, where it is a word out of a list.
        low: the least allowed number.
        high: the greatest allowed number.
    """
    metadata = {"meaning": meaning, "choices": choices, "low": low, "high": high}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class PhantomConfig:
    """The generated women of data=phantom."""

    women: int = option(96, "number of generated women; 96 leaves 24 test women and prepares in a minute", low=4)
    lesion_share: float = option(
        0.5, "share of the women who have a lesion, in one breast; half, so that few women suffice", low=0, high=1
    )
    height_pixels: int = option(640, "rows of a generated image", low=128, high=4096)
    width_pixels: int = option(512, "columns of a generated image", low=128, high=4096)
    spacing_mm: float = option(0.3, "pixel spacing of a generated image in mm", low=0.05, high=2)
    contrast: float = option(
        1.0, "strength of the lesions; at 1 an untrained encoder does not solve the task", low=0, high=10
    )
    asymmetry: float = option(
        1.0, "strength of what normally differs between the sides: texture details, position, compression", low=0
    )
    seed: int = option(0, "seed of the generator: other women for another seed", low=0)


@dataclass
class NormalConfig:
    """Where tissue counts as normal: an unmarked place is not normal by itself, as cancers may be unmarked."""

    birads: List[int] = option([1, 2], "BI-RADS categories of a breast whose unmarked tissue is normal; null ones too")
    outcomes: List[str] = option(
        ["normal", "benign"],
        "outcomes of an exam whose unmarked tissue is normal; null ones too: what no table doubts",
    )
    beside_findings: bool = option(
        True, "whether places outside the boxes of a marked breast are normal, whatever its BI-RADS and outcome"
    )


@dataclass
class OptimamConfig:
    """How data=optimam is read."""

    box_origin: str = option(
        "top",
        "corner that marks' y counts from: top, as public readers do, or bottom, as omidb's documentation says",
        choices=("top", "bottom"),
    )
    interval_months: float = option(
        36.0,
        "months after an exam within which an interval case makes it interval_cancer; 36 = the round of UK screening",
        low=1,
    )
    follow_up_months: float = option(
        34.0,
        "months after an exam at which a later screen must be negative to call it normal, else its outcome is null; "
        "34, as women are invited again after 36 and some come early (McKinney 2020 takes 1,035 days)",
        low=0,
    )
    later_cancer: str = option(
        "unknown",
        "exam before a cancer that the next screen found: unknown (null, and its breast is not normal tissue, as signs "
        "are often seen in hindsight) or normal (as it was read)",
        choices=("unknown", "normal"),
    )


@dataclass
class DataConfig:
    """Where the exams come from, and which women are kept for testing."""

    source: str = option(
        MISSING,
        "name of the source module in siamray/data/sources",
        choices=("phantom", "mias", "vindr", "optimam", "cbis_ddsm", "inbreast", "rsna", "folder"),
    )
    root: Optional[str] = option(None, "folder of the data set; null lets data=phantom use the cache folder")
    duplicates: str = option(
        "first",
        "several images of one side and view in an exam: first (by image id, blind to findings) or leave_out (all)",
        choices=("first", "leave_out"),
    )
    implants: bool = option(False, "take breasts with implants too; off, as the implant hides and shifts the tissue")
    secondary_captures: bool = option(
        False, "take DICOM secondary captures, as digitised films are stored; off, as most are screenshots"
    )
    assumed_spacing_mm: Optional[float] = option(
        None, "pixel spacing in mm where neither table nor file says one; null leaves such images out", low=0.01, high=2
    )
    official_split: bool = option(True, "keep the test women that the source names; off deals all women into folds")
    folds: int = option(4, "number of folds the women are dealt into; one is the test fold, the next validation", low=3)
    fold: int = option(0, "which fold is the test fold, counted from 0", low=0)
    split_seed: int = option(
        0, "seed of the dealing of women into folds; fixed, so that all trials test the same women"
    )
    normal: NormalConfig = field(default_factory=NormalConfig)
    phantom: PhantomConfig = field(default_factory=PhantomConfig)
    optimam: OptimamConfig = field(default_factory=OptimamConfig)


@dataclass
class RegistrationConfig:
    """How the right image is brought onto the left one."""

    kind: str = option(
        "affine",
        "none (chest walls aligned), centroid, affine or bspline; bspline gains little more at thrice the time",
        choices=("none", "centroid", "affine", "bspline"),
    )
    working_spacing_mm: float = option(1.6, "pixel spacing at which the transform is sought, in mm", low=0.1, high=10)
    smoothing_mm: float = option(3.0, "Gaussian smoothing before the search, in mm: lesions must not steer it", low=0)
    iterations: int = option(60, "iterations at most per resolution level", low=1)
    bspline_mesh_mm: float = option(40.0, "distance of the B-spline control points in mm; below 20 lesions warp", low=5)
    bspline_area_factor: float = option(
        1.25, "factor by which the B-spline may swell or shrink any place of the breast: lesions must survive", low=1
    )
    minimum_quality: float = option(
        0.3,
        "quality (overlap * correlation * nearness of outlines) below which a pair is left out as not registered; "
        "all 110 women of mini-MIAS lie above it from kind=centroid on",
        low=0,
        high=1,
    )
    minimum_overlap: float = option(
        0.5, "Dice overlap of the two breast masks below which a pair is left out as not registered", low=0, high=1
    )


@dataclass
class PreparationConfig:
    """What prepare does to an exam; a change means another store."""

    spacing_mm: float = option(
        0.4, "pixel spacing of the store in mm; 0.4 shows masses and clusters and keeps an image under 1 MB", low=0.02
    )
    margin_mm: float = option(4.0, "margin kept around the breast when cropping, in mm", low=0)
    minimum_breast_share: float = option(
        0.02, "share of the image that the breast mask must cover, else the image is left out", low=0, high=1
    )
    registration: RegistrationConfig = field(default_factory=RegistrationConfig)
    image_seconds: float = option(
        120.0, "time-out of one image in seconds; a damaged file must not hold up the others", low=1
    )
    maximum_megapixels: float = option(
        64.0, "size in megapixels above which an image is left out: the largest detector has 30, scanned film 45", low=1
    )
    chunk_pixels: int = option(128, "edge of the store's chunks in pixels; two patches wide reads fastest", low=16)
    cpus: int = option(0, "processors used for preparing; 0 = all of them", low=0)


@dataclass
class AugmentationConfig:
    """Random changes of a pair: geometry jointly for both sides, intensity for each side on its own."""

    flip: bool = option(True, "mirror both patches up-down and left-right, each with probability 1/2")
    rotation_degrees: float = option(15.0, "greatest rotation, in degrees", low=0, high=180)
    crop_scale: float = option(
        0.6, "least side of the crop as a share of the patch; crops moved the score most on mini-MIAS", low=0.1, high=1
    )
    greatest_scale: float = option(
        1.0,
        "greatest side of the crop as a share of the patch; above 1 patches are also seen from further off",
        low=0.1,
        high=4,
    )
    shift_share: float = option(0.1, "greatest shift as a share of the patch side", low=0, high=0.5)
    brightness: float = option(0.3, "greatest shift of brightness, in standard deviations of the tissue", low=0)
    contrast: float = option(0.3, "greatest relative change of contrast", low=0, high=1)
    noise: float = option(0.05, "standard deviation of added noise, in standard deviations of the tissue", low=0)


@dataclass
class PairsConfig:
    """How patch pairs are cut from the store."""

    patch_pixels: int = option(64, "patch side in store pixels, unless patch_mm is given; 64 at 0.4 mm = 26 mm", low=16)
    patch_mm: Optional[float] = option(None, "patch side in mm; overrides patch_pixels", low=1)
    placement: str = option(
        "grid", "grid (every stride) or sampled (at random in the tissue)", choices=("grid", "sampled")
    )
    stride_share: float = option(0.5, "stride of the grid as a share of the patch side", low=0.05, high=4)
    per_exam_view: int = option(40, "pairs per exam and view when placement=sampled", low=1)
    minimum_tissue: float = option(0.8, "share of tissue a patch must have on both sides", low=0, high=1)
    normalization: str = option(
        "image",
        "image (mean and deviation of each image's tissue, as films differ in exposure) or pair (common to both sides)",
        choices=("image", "pair"),
    )
    background: str = option(
        "film",
        "what patches show where either side has no tissue: film (what is there) or mean (the tissue's mean on both "
        "sides, so that outlines that do not fit make no distance)",
        choices=("film", "mean"),
    )
    cache_mb: int = option(2048, "memory for decoded images in MB; beyond it windows are read from the store", low=0)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)


@dataclass
class EncoderConfig:
    """The network that turns a patch into features, and the projector behind it."""

    backbone: str = option("resnet10t", "timm model; resnet10t trains on two cores")
    weights: str = option(
        "random",
        "random, or imagenet (timm downloads them: the only download siamray makes; those of tf_efficientnet_lite0 are "
        "taken from the extra imagenet where it is installed)",
        choices=("random", "imagenet"),
    )
    folder: Optional[str] = option(None, "folder of an exported encoder to start from (written encoder=DIR for short)")
    projector_hidden: int = option(256, "width of the projector's hidden layer", low=1)
    projector_features: int = option(64, "length of the projected embedding", low=1)


@dataclass
class MixtureConfig:
    """The Gaussian mixture that turns pair distances into soft labels."""

    components: str = option(
        "2",
        "number of components: 2 = similar and different; auto = the number from 1 to 5 with the least BIC",
        choices=("auto", "1", "2", "3", "4", "5"),
    )
    covariance: str = option(
        "tied", "tied (one variance: posterior monotone by itself) or free (clamped monotone)", choices=("tied", "free")
    )
    anchors: str = option(
        "none",
        "none, or ends: sure-similar and sure-different distances, measured every epoch, fix the ends of the mixture",
        choices=("none", "ends"),
    )
    anchor_pairs: int = option(
        512, "pairs whose sure-similar and sure-different distances are measured; 512 locate the ends to 1 %", low=16
    )
    prior_weight: float = option(
        0.0, "weight of the prior that the share of abnormal pairs is expected_abnormal, in all pairs; 0 = none", low=0
    )
    starts: int = option(5, "seeded starts of the fit; the likeliest wins", low=1)
    iterations: int = option(1000, "iterations of the fit at most", low=1)
    tolerance: float = option(
        1e-6, "gain of mean log likelihood at which the fit stops; labels are then within 1e-3 of the limit", low=0
    )
    regularization: float = option(5e-4, "added to the variances of standardized distances; DivideMix's value", low=0)
    minimum_separation: float = option(
        2.0,
        "Ashman's D between the top component and the rest below which no label is used (w=0); above 2 they are apart",
        low=0,
    )


@dataclass
class CrossRegularizationConfig:
    """How the two networks hold each other."""

    kind: str = option(
        "symmetric_kl",
        "symmetric_kl, distance_consistency, relational or none",
        choices=("symmetric_kl", "distance_consistency", "relational", "none"),
    )
    weight: float = option(0.1, "its weight in the loss; 0.1 as in JoCoR", low=0)


@dataclass
class AntiCollapseConfig:
    """What keeps the embeddings from falling into one point."""

    kind: str = option(
        "negatives",
        "negatives (all other patches of the batch are pushed beyond the margin), partners (one random right patch "
        "each), variance_covariance (VICReg) or none",
        choices=("negatives", "partners", "variance_covariance", "none"),
    )
    weight: float = option(1.0, "its weight in the loss", low=0)
    covariance_weight: float = option(
        0.04, "weight of the covariance term within variance_covariance; VICReg's 1/25", low=0
    )


@dataclass
class MassesConfig:
    """Drawn masses: a patch and the same with a mass in it are a pair that surely differs, without annotation."""

    weight: float = option(
        0.0,
        "weight of these pairs beside the real ones, of which there are a quarter as many; 0 = none, 4 = equal",
        low=0,
    )
    head_weight: float = option(
        0.0,
        "weight of the cross-entropy by which a linear head on the features tells how strong a mass is; 0 = no head",
        low=0,
    )
    contrast: float = option(
        1.0,
        "greatest brightness of a mass, in standard deviations of the tissue; the label is the share of it. At 1 the "
        "validation women of mini-MIAS are told better than at 2 (ablation=drawn_lesions), by all scores",
        low=0,
    )
    least_radius_share: float = option(0.08, "least radius, as a share of the patch side", low=0.01, high=0.5)
    greatest_radius_share: float = option(0.3, "greatest radius, as a share of the patch side", low=0.01, high=1)
    centre_share: float = option(0.6, "middle part of the patch side in which the centres lie", low=0, high=1)
    cluster_share: float = option(
        0.0,
        "share of the drawn lesions that are clusters of calcifications; 0 = masses alone, as a third of clusters "
        "helped calcifications of mini-MIAS's validation women and cost masses more (ablation=drawn_lesions)",
        low=0,
        high=1,
    )


@dataclass
class RivalConfig:
    """Standard self-supervised methods in the same harness (siamray.pretraining.baselines)."""

    bilateral: bool = option(False, "the positive of a patch is a view of the other side's patch, not of its own")
    temperature: float = option(0.1, "temperature of SimCLR, SwAV and DINO's student; MoCo takes 0.2", low=0.001)
    momentum: float = option(
        0.99, "share of its weights that a teacher keeps at first; rises to 1 by a cosine", low=0, high=1
    )
    queue: int = option(4096, "embeddings in MoCo's queue; small data sets have few patches", low=1)
    prototypes: int = option(
        512, "prototypes of SwAV, outputs of DINO; 3000 and more are for a thousand classes", low=2
    )
    predictor_hidden: int = option(
        256, "width of the hidden layer of BYOL's and SimSiam's predictor, DINO's head", low=1
    )
    masked_share: float = option(0.75, "share of a patch that MAE hides; the paper's", low=0.05, high=0.95)
    decoder_features: int = option(128, "width of MAE's decoder, a multiple of 4", low=4)
    decoder_depth: int = option(2, "blocks of MAE's decoder", low=1)


@dataclass
class PretrainingConfig:
    """The method: labels, loss, the two networks, and their training."""

    method: str = option(
        "siamese",
        "siamese (the method), or a rival by lightly with the same encoder, patches, augmentation and steps",
        choices=("siamese", "simclr", "moco", "byol", "simsiam", "barlow_twins", "vicreg", "swav", "dino", "mae"),
    )
    labels: str = option(
        "mixture",
        "mixture (posterior), hard (posterior above 0.5), rank (share of pairs with a smaller distance), "
        "or none (all pairs similar)",
        choices=("mixture", "hard", "rank", "none"),
    )
    partners: str = option(
        "registered",
        "registered, or shuffled (another woman's patch as partner: the negative control)",
        choices=("registered", "shuffled"),
    )
    peer: str = option(
        "network",
        "what is beside the network: a second network that is trained as well, a teacher (its moving average), or none",
        choices=("network", "teacher", "none"),
    )
    teacher_momentum: float = option(
        0.99, "share of its weights that a teacher keeps at each step; 0.99 as short runs have few steps", low=0, high=1
    )
    label_exchange: str = option(
        "peer", "whose labels train a network: peer, self or mean", choices=("peer", "self", "mean")
    )
    label_temperature: float = option(
        1.0, "temperature that sharpens the mixture's labels; 1 = as they are, DivideMix takes 0.5", low=0.01, high=1
    )
    refinement_views: int = option(
        0,
        "augmented views over which, and over the plain patches, a pair's label is averaged (DivideMix's co-refinement "
        "takes 2); each costs a forward pass of all pairs an epoch",
        low=0,
    )
    shift_share: float = option(
        0.0,
        "pairs are labelled and scored by the least distance over nine places of the right patch, which lie this share "
        "of the patch side apart: forgives misregistration, at five times the measuring; 0 = the place itself",
        low=0,
        high=0.5,
    )
    embedding: str = option(
        "unit", "unit (l2-normalised, distances in 0..2) or raw embeddings", choices=("unit", "raw")
    )
    loss: str = option(
        "hinge",
        "loss of a pair: hinge, (1-w)/2 d^2 + w/2 max(0, m-d)^2; or logistic, the cross-entropy of w with "
        "sigmoid(s (d-t)), which has no margin",
        choices=("hinge", "logistic"),
    )
    margin: float = option(1.2, "margin m of the contrastive loss, in units of the embedding's distance", low=0)
    soft_margin: str = option(
        "constant",
        "margin m(w) of the soft loss: constant, or growing with the label from 0 to m: linear, exponential, sine",
        choices=("constant", "linear", "exponential", "sine"),
    )
    warmup_epochs: int = option(2, "epochs with w=0 before labels are used", low=0)
    expected_abnormal: float = option(
        0.1, "expected share of abnormal pairs; labels=rank gives labels of this mean", low=0.001, high=0.5
    )
    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    masses: MassesConfig = field(default_factory=MassesConfig)
    rival: RivalConfig = field(default_factory=RivalConfig)
    cross_regularization: CrossRegularizationConfig = field(default_factory=CrossRegularizationConfig)
    anti_collapse: AntiCollapseConfig = field(default_factory=AntiCollapseConfig)
    epochs: int = option(8, "number of epochs; 0 exports the untrained encoder", low=0)
    batch_pairs: int = option(64, "pairs per optimiser step, over all workers", low=2)
    accumulate: int = option(
        1,
        "parts into which a worker divides its share of a batch, one after the other, with their gradients added up: "
        "the batch of many workers on few, or in less memory; negatives and batch norm see a part alone",
        low=1,
    )
    pairs_per_epoch: Optional[int] = option(None, "pairs drawn anew for each epoch; null = all pairs", low=2)
    learning_rate: float = option(2e-3, "greatest learning rate of AdamW", low=0)
    rate_scaling: str = option(
        "none",
        "how the learning rate follows the pairs per step: none, or from rate_batch_pairs on linear (Goyal 2017) or "
        "sqrt (for AdamW, Malladi 2022); none, as a step has batch_pairs on any number of workers",
        choices=("none", "linear", "sqrt"),
    )
    rate_batch_pairs: int = option(64, "pairs per step that learning_rate is meant for, where it is scaled", low=2)
    weight_decay: float = option(1e-4, "weight decay of AdamW", low=0)
    schedule: str = option("one_cycle", "one_cycle, cosine or constant", choices=("one_cycle", "cosine", "constant"))
    precision: str = option(
        "auto",
        "number format and memory layout of the forward pass; auto = the fastest for this encoder, measured first",
        choices=("auto", "float32", "bfloat16", "float32_channels_last", "bfloat16_channels_last"),
    )
    batch_norm: str = option(
        "local", "local statistics on every worker, or sync over all workers (GPU only)", choices=("local", "sync")
    )


@dataclass
class PatchesConfig:
    """The task abnormal-vs-normal patch."""

    minimum_box_share: float = option(
        0.5,
        "a patch is a lesion patch if it covers at least this share of a lesion's box, or lies in it by as much",
        low=0.01,
        high=1,
    )
    per_lesion: int = option(4, "lesion patches cut per lesion, at seeded shifts around its centre", low=1)
    normal_per_image: int = option(4, "normal patches cut per image, at seeded places that touch no lesion", low=1)
    mirrors: bool = option(
        True,
        "the scores distance and abnormality are means over a pair and its mirror images, up-down and left-right, as "
        "training shows both alike; on mini-MIAS's validation women the distance's AUC rose in all four folds. Maps of "
        "whole images do without",
    )


@dataclass
class ProbeConfig:
    """Classifiers on frozen features."""

    strengths: List[float] = option(
        [0.001, 0.01, 0.1, 1.0, 10.0], "values of C of the logistic regression; validation women choose"
    )
    neighbours: List[int] = option([20, 200], "k of the k-nearest-neighbour classifiers (cosine)")
    temperature: float = option(0.07, "temperature of the neighbours' votes", low=0.001)


@dataclass
class FineTuningConfig:
    """Training the whole encoder on labelled patches."""

    epochs: int = option(
        0,
        "epochs at most, of which validation women choose one; 0 = no fine-tuning, as it costs as pretraining does",
        low=0,
    )
    learning_rate: float = option(3e-4, "greatest learning rate of the encoder (AdamW, cosine to 0)", low=0)
    head_factor: float = option(
        10.0, "learning rate of the new last layer as a multiple of the encoder's; it starts from nothing", low=0
    )
    weight_decay: float = option(1e-4, "weight decay of AdamW", low=0)
    batch_patches: int = option(64, "patches per optimiser step", low=2)
    augment: bool = option(True, "augment the training patches as pairs.augmentation says; few labels overfit at once")


@dataclass
class BagsConfig:
    """Patches of which a breast, an exam or a woman is told as a whole."""

    stride_share: float = option(
        1.0, "stride of their grid as a share of the patch side; 1 sees all tissue once", low=0.05, high=4
    )
    patches_per_image: int = option(
        64, "patches per image at most, a seeded choice; 64 hold 20,000 images of resnet10t in 2.6 GB", low=1
    )
    class_weights: str = option(
        "balanced",
        "weight of a class in training: balanced (its inverse frequency, or rare classes are never answered) or equal",
        choices=("balanced", "equal"),
    )


@dataclass
class AttentionConfig:
    """Gated attention over the patches of a bag (Ilse 2018)."""

    width: int = option(
        64, "width of the layer before the attention, and of the attention; small, as women are few", low=1
    )
    dropout: float = option(0.25, "share of that layer's features left out in training", low=0, high=0.9)
    epochs: int = option(100, "epochs at most", low=1)
    patience: int = option(15, "epochs without a smaller loss on validation women after which training stops", low=1)
    learning_rate: float = option(1e-3, "learning rate of AdamW", low=0)
    weight_decay: float = option(1e-2, "weight decay of AdamW", low=0)
    batch_bags: int = option(16, "bags per optimiser step", low=1)


@dataclass
class OutcomeConfig:
    """The task outcome of a woman."""

    positive: List[str] = option(
        ["malignant", "interval_cancer"],
        "outcomes that AUC and average precision tell from all others; the cancers",
        choices=("normal", "benign", "malignant", "interval_cancer"),
    )


@dataclass
class DetectionConfig:
    """Lesion detection: maps of both sides, candidates on them, and when a candidate hits."""

    score: str = option(
        "distance",
        "what siamray.detect maps: distance (of left and right) or abnormality (by the head on drawn masses), "
        "which need no annotation, or linear (a probe learnt from training women's lesions); evaluate tests all",
        choices=("distance", "abnormality", "linear"),
    )
    way: str = option(
        "dense",
        "dense (trunk shared between windows, several times as fast) or patchwise (each window by itself, as trained)",
        choices=("dense", "patchwise"),
    )
    step_pixels: int = option(
        8, "distance of neighbouring windows in store pixels, a power of two; 8 = 3.2 mm, an eighth of the patch", low=1
    )
    minimum_tissue: float = option(
        0.5,
        "share of tissue a window must have on both sides; half, as lesions also lie at the breast's edge",
        low=0.01,
        high=1,
    )
    side: str = option(
        "brightness",
        "what says which side of a distance is abnormal: the higher brightness (smoothed), linear score or abnormality",
        choices=("brightness", "linear", "abnormality"),
    )
    candidates: int = option(8, "candidates of a pair of images at most; more than the rates of the FROC curve", low=1)
    separation_share: float = option(
        0.5, "least distance of two candidates along rows or columns, as a share of the patch side", low=0.05, high=2
    )
    hit: str = option(
        "distance",
        "when a candidate hits a lesion of its side: distance (its centre is no further from the lesion's than half "
        "the box's diagonal or hit_mm; DBTex's rule), centre (its centre lies in the box) or overlap (IoU of boxes)",
        choices=("distance", "centre", "overlap"),
    )
    hit_mm: float = option(
        10.0,
        "distance in mm that is a hit for small lesions with hit=distance; DBTex has 8.5",
        low=0,
    )
    hit_overlap: float = option(0.1, "intersection over union that is a hit with hit=overlap", low=0.01, high=1)
    false_positives: List[float] = option(
        [0.25, 0.5, 1.0, 2.0], "false positives per image at which the sensitivity is given"
    )
    counted_on: str = option(
        "all", "images whose false positives count: all, or normal ones alone", choices=("all", "normal")
    )
    opacity: float = option(0.45, "opacity of the map over the image, where it is greatest", low=0, high=1)
    dicom: bool = option(True, "siamray.detect also writes a DICOM Secondary Capture, with highdicom")


@dataclass
class IntervalsConfig:
    """Intervals and tests."""

    replicates: int = option(2000, "bootstrap replicates over women", low=100)
    confidence: float = option(0.95, "coverage of the intervals", low=0.5, high=0.999)
    equivalence_margin: Optional[float] = option(
        0.02,
        "differences within +- this, in units of the metric, count as none in the test of equivalence; null = no such "
        "test; 0.02, as it is less than half of the least gain that docs/mini-mias.md reports (0.049), and other women "
        "alone move one AUC by more",
        low=0.0001,
        high=1,
    )
    seed: int = option(0, "seed of the bootstrap", low=0)


@dataclass
class DownstreamConfig:
    """What an encoder is asked to do, and how sure the answer is."""

    tasks: List[str] = option(
        ["patches"],
        "tasks: patches (abnormal or normal), birads (of breast and exam), outcome (of the woman), density (of the "
        "breast), detection (of lesions on maps of whole images); patches alone by default, as the others encode every "
        "image and their labels are rarer",
        choices=("patches", "birads", "outcome", "density", "detection"),
    )
    patches: PatchesConfig = field(default_factory=PatchesConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    label_fractions: List[float] = option(
        [1.0],
        "shares of the labelled training women that classifiers of patches learn from, beside all of them; validation "
        "women choose as ever",
        low=0.0001,
        high=1,
    )
    label_draws: int = option(3, "seeded draws of the women of a label fraction below 1, nested in one another", low=1)
    fine_tuning: FineTuningConfig = field(default_factory=FineTuningConfig)
    bags: BagsConfig = field(default_factory=BagsConfig)
    attention: AttentionConfig = field(default_factory=AttentionConfig)
    outcome: OutcomeConfig = field(default_factory=OutcomeConfig)
    detection: DetectionConfig = field(default_factory=DetectionConfig)
    intervals: IntervalsConfig = field(default_factory=IntervalsConfig)
    examples: int = option(2, "test exams whose distance map is kept for the report", low=0)
    example_epochs: int = option(
        3,
        "epochs whose maps of these exams are kept, evenly from before the training to its end, the last one always; 3 "
        "(before, half way, at the end), as fewer show no course and every one costs a look at the exams",
        low=1,
        high=9,
    )


@dataclass
class ClusterConfig:
    """Where the work runs."""

    address: Optional[str] = option(
        None, "address of a running Ray cluster (auto finds it); null starts Ray on this machine"
    )
    workers: int = option(
        0, "Ray Train workers per trial; 0 trains in the trial's own process, which starts at once", low=0
    )
    cpus: int = option(1, "processors per trial (workers=0) or per worker", low=1)
    gpus: float = option(0.0, "GPUs per trial (workers=0) or per worker", low=0)
    failures: int = option(2, "times a failed trial is tried again", low=0)
    trials: Optional[int] = option(
        None,
        "trials at a time; null = as many as the nodes that are there have room for; to be given where nodes are "
        "started as trials want them, as at first there are none",
        low=1,
    )
    start_minutes: float = option(
        15.0, "minutes that a cluster has to start its first node with room for a trial; a cloud takes five", low=0
    )
    disk_gb: float = option(
        10.0, "free GB of temporary files, cache and shared folders that check=true wants on every node", low=0
    )
    chunk_cache_gb: float = option(
        10.0,
        "GB that chunks of a remote store (s3://...) may take in siamray's cache on a node, over all its trials; 10, "
        "as no more is asked of nodes (disk_gb): where they have more, give the store's size; 0 = none",
        low=0,
    )


@dataclass
class ParameterConfig:
    """One option that is searched or tuned."""

    kind: str = option(MISSING, "float, int or categorical", choices=("float", "int", "categorical"))
    low: Optional[float] = option(None, "least value")
    high: Optional[float] = option(None, "greatest value")
    log: bool = option(False, "sampled in the logarithm")
    choices: List[Any] = option([], "values of a categorical option")
    only_if: Dict[str, Any] = option(
        {}, "other options, searched before, and the value (or values) they must have for this one to matter"
    )


@dataclass
class AblationConfig:
    """A question, and the variants that answer it."""

    name: str = option(MISSING, "name of the experiment: its folder under results")
    question: str = option(MISSING, "what the ablation asks, in one sentence")
    reference: str = option(
        "",
        "variant the others are compared with; of a design by default whole, bare, or the first levels of all factors",
    )
    metric: str = option("patches_linear_auc", "primary metric, computed on test women")
    base: List[str] = option(
        [], "overrides that all variants start from, such as pretraining=siamese; the command line's come after them"
    )
    design: str = option(
        "list",
        "what makes the variants: list (variants alone), one_factor (each level of a factor), leave_one_out or "
        "add_one_in (of components), factorial (levels of all factors combined); variants written beside are added",
        choices=("list", "one_factor", "leave_one_out", "add_one_in", "factorial"),
    )
    variants: Dict[str, List[str]] = option({}, "variant name -> its overrides of the base configuration")
    controls: Dict[str, List[str]] = option({}, "control name -> its overrides; shown beside, compared like a variant")
    factors: Dict[str, Dict[str, List[str]]] = option(
        {}, "of one_factor and factorial: factor -> level -> its overrides; the first level is the reference's"
    )
    options: Dict[str, List[Any]] = option(
        {}, "factors for short, after those of factors: option -> its values; called by the end of the option's name"
    )
    components: Dict[str, List[str]] = option(
        {}, "component -> overrides that switch it off (design=leave_one_out) or on (design=add_one_in)"
    )
    only_if: Dict[str, Dict[str, Any]] = option(
        {}, "factor -> {another, listed before: its level or levels} without which this one is not crossed (factorial)"
    )
    skip: List[Dict[str, Any]] = option(
        [], "combinations that make no sense, each {factor: its level or levels, ...}, left out of a factorial"
    )
    fraction: int = option(
        1,
        "a factorial of two-level factors runs one in so many of its combinations: 2 = half, 4 = quarter; 1 = all, as "
        "a fraction aliases interactions with one another; dry_run=true says which",
        low=1,
    )
    seeds: List[int] = option([], "seeds of every variant; empty = seed to seed + seeds - 1", low=0)
    folds: List[int] = option([], "folds that are tested in turn; empty = data.fold alone")
    only: List[str] = option(
        [], "names of the variants and controls to take, the reference among them; empty = all of them"
    )
    tune: int = option(
        0,
        "settings of the options in tuned that every variant and control tries on validation women of each fold before "
        "it is compared with its best one, its own setting first; the same number for all, or the favourite wins by "
        "being tuned more; 0 = none",
        low=0,
    )
    tuned: Dict[str, ParameterConfig] = option(
        {}, "option -> where it may lie when variants are tuned; only_if may name options that variants set"
    )
    tune_metric: Optional[str] = option(
        None, "metric on validation women that chooses a setting; null = the primary metric's (validation_ before it)"
    )
    tune_sampler: str = option(
        "tpe",
        "draws the settings, one after the other for each variant; the first ten of tpe are random, and the same for "
        "all variants with the same options",
        choices=("tpe", "multivariate_tpe", "gp", "random", "quasi_random"),
    )
    tune_seed: int = option(
        1000,
        "seed of the trials that tune; none of those compared, as a seed may not be chosen by what it is tested on",
        low=0,
    )
    limit: int = option(
        1000, "trials at most; 1000 are a night of two cores at a first look of 100 s, beyond it is rarely meant", low=1
    )


@dataclass
class SearchConfig:
    """An Optuna search of the method's options: a selection on validation women, and its confirmation on test women."""

    name: str = option(MISSING, "name of the experiment: its folder under results")
    question: str = option(MISSING, "what the search looks for, in one sentence")
    metric: str = option(
        "validation_patches_linear_auc",
        "the objective of a search with one, maximised; on validation women, never on test women",
    )
    objectives: Dict[str, str] = option(
        {},
        "several objectives: metric on validation women, or a cost of the trial in seconds (cpu_s, gpu_s, wall_s, "
        "pretrain_s) -> maximize or minimize; none = metric alone",
    )
    sampler: str = option(
        "tpe",
        "tpe and multivariate_tpe learn conditional options too; nsga2 and nsga3 (several objectives, hundreds of "
        "trials), gp, cmaes (pip install 'siamray[cmaes]'), quasi_random and random draw some at random, as they say",
        choices=("tpe", "multivariate_tpe", "nsga2", "nsga3", "gp", "cmaes", "random", "quasi_random"),
    )
    population: int = option(
        10, "trials of a generation of nsga2 and nsga3; small, as searches here have tens of trials", low=2
    )
    pruner: str = option(
        "none",
        "stops trials early by their objective on validation women: asha (a trial goes on at epoch grace_epochs x "
        "reduction^k if it is among the best 1/reduction there; Li 2020) or median (if not below the median of the "
        "trials before); of one objective only; none by default, as slow starters lose",
        choices=("none", "asha", "median"),
    )
    evaluate_every: int = option(
        1, "epochs between two looks of a pruner; one look costs a linear probe on validation women", low=1
    )
    grace_epochs: int = option(1, "epochs that every trial trains before a pruner may stop it", low=1)
    reduction: int = option(3, "asha lets one trial in so many go on; 3 wastes less than 4 among few trials", low=2)
    startup_trials: int = option(5, "trials that must have ended before median pruning starts; Optuna's default", low=1)
    trials: Optional[int] = option(
        20, "budget: different settings that are tried, stopped and failed ones too; null = no limit", low=1
    )
    hours: Optional[float] = option(None, "budget: hours that the search runs, all its runs together", low=0)
    cpu_hours: Optional[float] = option(None, "budget: hours of processors that its trials reserve", low=0)
    gpu_hours: Optional[float] = option(None, "budget: hours of GPUs that its trials reserve", low=0)
    warm_start: Optional[str] = option(
        None,
        "folder or URL RESULTS/EXPERIMENT whose finished trials the sampler learns from, where they lie in the space",
    )
    confirm: int = option(
        3, "fresh seeds on which the winner is compared with the untouched base on test women; 0 = none", low=0
    )
    parameters: Dict[str, ParameterConfig] = option({}, "option -> where it may lie")


@dataclass
class Config:
    """All options of all commands."""

    data: DataConfig = field(default_factory=DataConfig)
    preparation: PreparationConfig = field(default_factory=PreparationConfig)
    pairs: PairsConfig = field(default_factory=PairsConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    pretraining: PretrainingConfig = field(default_factory=PretrainingConfig)
    downstream: DownstreamConfig = field(default_factory=DownstreamConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    ablation: Optional[AblationConfig] = option(None, "the ablation to run: a name in experiments/ablation")
    search: Optional[SearchConfig] = option(None, "the search to run: a name in experiments/search")
    store: Optional[str] = option(
        None, "folder of the prepared exams; null = a folder in the user's cache per data and preparation"
    )
    results: str = option(
        "results",
        "folder the experiments are written to, or a URL (s3://bucket/prefix); of sweep status, export and verify: "
        "DIR/EXPERIMENT; of sweep across one or several: [DIR/A,DIR/B]",
    )
    out: str = option("runs/pretrain", "folder that pretrain, evaluate or detect writes to")
    from_trial: Optional[str] = option(
        None,
        "folder or URL of a recorded trial (results/EXPERIMENT/trials/TRIAL) that pretrain runs again: its "
        "configuration, its data, its evaluation, and so its numbers; written from=DIR",
    )
    trial: Optional[str] = option(
        None, "trial that sweep verify runs again, by its folder's name; null = a finished one, drawn with seed="
    )
    exam: Optional[str] = option(None, "exam_id, or entry_id of one view, in which detect looks for lesions")
    seed: int = option(0, "the seed all randomness of a run flows from; a sweep counts its seeds from here", low=0)
    seeds: int = option(3, "number of seeds of every variant; fewer than 3 say little", low=1)
    inspect: bool = option(False, "read headers and tables only, and report what preparing would meet")
    page: str = option("inspection.html", "file that inspect=true writes its page to")
    progress: str = option(
        "auto",
        "how a running sweep shows on standard error: live (a table, drawn anew), lines (a trial that ends each), json "
        "(an object a line and event, for batch systems), quiet, or auto: live on a terminal, else lines",
        choices=("auto", "live", "lines", "json", "quiet"),
    )
    metrics: List[str] = option(
        [],
        "metrics that sweep across averages over, the first one ranks; empty = those that all experiments compare and "
        "that have a level of chance (auc, macro_auc, kappa)",
    )
    tracking: str = option(
        "none",
        "where else results go when a sweep ends, or by sweep export: none, or mlflow: a run per trial on a tracking "
        "server (pip install 'siamray[mlflow]'); none, as the results folder has all of it",
        choices=("none", "mlflow"),
    )
    tracking_uri: Optional[str] = option(
        None,
        "address of the MLflow server (http://HOST:5000); null = MLFLOW_TRACKING_URI, else MLflow's default",
    )
    check: bool = option(
        False,
        "test every node of the cluster, and run nothing: versions, the folders of store and results, disk, GPUs, "
        "speed of the folders, clocks; exit code 2 and a line per trouble, or a table",
    )
    dry_run: bool = option(False, "print the trials, their number and estimated cost, and run nothing")
    experiments: Optional[str] = option(None, "a further folder of groups (data/, ablation/, ...) of one's own")
