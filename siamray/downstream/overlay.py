"""A view's images, maps, candidates and known lesions go in; one picture of both sides comes out."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from siamray.data.pairs import SIDES, Side
from siamray.downstream.candidates import Candidate

NOT_FOR_DIAGNOSIS = "NOT FOR DIAGNOSTIC USE"
# Dark to bright with even steps of lightness (inferno of matplotlib, at nine places), so that grey prints keep order.
_COLOURS = np.array(
    [
        *([0, 0, 4], [31, 12, 72], [85, 15, 109], [136, 34, 106], [186, 54, 85]),
        *([227, 89, 51], [249, 140, 10], [249, 201, 50], [252, 255, 164]),
    ]
)
_CANDIDATE, _LESION, _TEXT = (86, 180, 233), (0, 230, 118), (235, 235, 235)
# Rows of the picture at least: small stores are enlarged so that boxes and numbers can be read.
_ROWS = 800
_BAND = 26


def colours(share: NDArray[np.floating]) -> NDArray[np.float64]:
    """Colours [..., 3] in 0..255 of values in 0..1."""
    places = np.clip(share, 0, 1) * (len(_COLOURS) - 1)
    return np.stack([np.interp(places, np.arange(len(_COLOURS)), part) for part in _COLOURS.T], axis=-1)


def draw_overlay(
    images: Mapping[Side, NDArray[np.uint16]],
    masks: Mapping[Side, NDArray[np.bool_]],
    maps: Mapping[Side, NDArray[np.floating]],
    candidates: Sequence[Candidate],
    lesions: Sequence[tuple[Side, tuple[float, float, float, float]]],
    opacity: float,
    title: str,
) -> Image.Image:
    """Draws both sides beside each other as they lie in the store, the right one registered onto the left one.

    The map is coloured over the breast, the more opaque the higher it is; candidates are numbered solid blue boxes,
    known lesions dashed green ones.

    Args:
        images: [H, W] of each side; 65535 = white.
        masks: [H, W], where the breast is.
        maps: [H, W] of each side, NaN = no value; coloured from the median to the maximum of both.
        candidates: by falling score.
        lesions: side and box row_min, col_min, row_max, col_max in store pixels.
        opacity: of the map where it is greatest, 0..1.
        title: first words of the caption.
    """
    known = np.concatenate([values[np.isfinite(values)] for values in maps.values()])
    low, high = (float(np.median(known)), float(known.max())) if known.size else (0.0, 1.0)
    height, width = images["left"].shape
    scale = max(1, -(-_ROWS // height))
    picture = Image.new("RGB", (2 * width * scale, height * scale + 2 * _BAND))
    for place, side in enumerate(SIDES):
        tissue = images[side][masks[side]] if masks[side].any() else images[side].ravel()
        dark, bright = np.percentile(tissue, [1, 99.5])
        grey = np.clip((images[side].astype(np.float64) - dark) / max(bright - dark, 1), 0, 1) * 255
        share = np.clip((np.nan_to_num(maps[side], nan=low) - low) / max(high - low, 1e-12), 0, 1)
        opaque = (opacity * share * masks[side])[..., None]
        mixed = (1 - opaque) * grey[..., None] + opaque * colours(share)
        part = Image.fromarray(np.rint(mixed).astype(np.uint8))
        picture.paste(part.resize((width * scale, height * scale), Image.Resampling.BICUBIC),
                      (place * width * scale, _BAND))  # fmt: skip
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(size=15)

    def corners(side: Side, box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        left, right = (SIDES.index(side) * width * scale, (SIDES.index(side) + 1) * width * scale - 1)
        across = [min(max(left + value * scale, left), right) for value in (box[1], box[3])]
        down = [min(max(_BAND + value * scale, _BAND), _BAND + height * scale - 1) for value in (box[0], box[2])]
        return across[0], down[0], across[1], down[1]

    for side, box in lesions:
        _dashed(pen, corners(side, box))
    for number, candidate in enumerate(candidates, start=1):
        place_of = corners(candidate.side, candidate.box)
        pen.rectangle(place_of, outline=_CANDIDATE, width=2)
        label = f"{number}: {candidate.value:.2f}"
        pen.text((place_of[0] + 4, place_of[1] + 2), label, _CANDIDATE, font, stroke_width=2, stroke_fill=(0, 0, 0))
    for place, side in enumerate(SIDES):
        pen.text((place * width * scale + 4, 4), f"{side.upper()}  {title}", fill=_TEXT, font=font)
    caption = f"{NOT_FOR_DIAGNOSIS}   blue: candidates   green, dashed: marked lesions"
    pen.text((4, picture.height - _BAND + 4), caption, fill=_TEXT, font=font)
    return picture


def _dashed(pen: ImageDraw.ImageDraw, box: tuple[float, float, float, float], dash: int = 8) -> None:
    left, top, right, bottom = box
    for start in np.arange(left, right, 2 * dash):
        for row in (top, bottom):
            pen.line([(start, row), (min(start + dash, right), row)], fill=_LESION, width=2)
    for start in np.arange(top, bottom, 2 * dash):
        for col in (left, right):
            pen.line([(col, start), (col, min(start + dash, bottom))], fill=_LESION, width=2)
