"""From an explanation to what is stored of each picture: its record, its pictures with 8 bits, and float16 files."""

import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ace_counterfactuals.core.base.reading import read_npy
from ace_counterfactuals.core.data.measured import Span, as_measured
from ace_counterfactuals.core.data.pictures import UnreadableImage, to_pil
from ace_counterfactuals.core.method.explain import Explanation
from ace_counterfactuals.core.method.filtering import change_mask
from ace_counterfactuals.core.method.objectives import predict, probabilities
from ace_counterfactuals.core.runs.layout import Pictures, fingerprint
from ace_counterfactuals.core.runs.records import KINDS, Outcome, Record

LARGEST_NPY = 2**26  # bytes of a pre-explanation
ROUNDS = 8  # of moving changes back across the threshold


def draw_pictures(
    explanation: Explanation, i: int, *, inpaint: float | None = None, span: Span | None = None
) -> Pictures:
    """The i-th picture of a batch, with what was found for it.

    inpaint: where the pre-explanation is to be kept as numbers, too, the threshold of the mask.
    span: of measurements, which the original and the explanation are kept as, too.
    """
    image, noised = explanation.image[i], to_pil(explanation.noised[i])
    shown = {"pre-explanation": explanation.pre_explanation[i], "explanation": explanation.counterfactual[i]}
    contents = {}
    for kind in KINDS:
        mask = change_mask(image[None], shown[kind][None])[0]
        contents[kind] = {"CF": to_pil(shown[kind]), "Noise": noised, "SM": to_pil(mask)}
    numbers = (
        None if inpaint is None else to_npy(to_stored(image, explanation.pre_explanation[i], inpaint).cpu().numpy())
    )
    kept = {"original": image, "explanation": shown["explanation"]}
    units = {name: to_npy(as_measured(picture, span)) for name, picture in kept.items()} if span else {}
    return Pictures(to_pil(image), contents, numbers, units)


def draw_refined(explanation: Explanation, i: int, *, span: Span | None = None) -> Pictures:
    """The i-th picture of a batch that was refined again; its mask is 1 where pixels are kept, as the original's."""
    drawn = {"CF": explanation.counterfactual, "Noise": explanation.noised, "SM": explanation.keep.float()}
    units = {"explanation": to_npy(as_measured(explanation.counterfactual[i], span))} if span else {}
    return Pictures(None, {"explanation": {name: to_pil(pictures[i]) for name, pictures in drawn.items()}}, None, units)


def make_record(explanation: Explanation, i: int, *, index: int, file: str, label: int) -> Record:
    """The record of the i-th picture of a batch."""
    binary, image = explanation.logits.ndim == 1, explanation.image[i]
    prediction = explanation.prediction[i].item()
    target = -1 if explanation.target is None else explanation.target[i].item()

    def outcome(changed: Tensor, logits: Tensor) -> Outcome:
        logits = logits[i : i + 1]
        probability, now, change = probabilities(logits)[0], predict(logits).item(), (image - changed[i]).abs()
        likeliest, classes = (values.tolist() for values in probability.topk(min(5, len(probability))))
        return Outcome(
            prediction=now,
            success=now == target if target >= 0 else now != prediction,
            success5=binary or (target in classes if target >= 0 else classes != [prediction]),
            changed=now != prediction,
            changed5=not binary and prediction not in classes,
            prob=probability[now].item(),
            source_prob=probability[prediction].item(),
            target_prob=probability[target].item() if target >= 0 else None,
            l1=change.mean().item(),
            l_inf=change.max().item(),
            top5=tuple(zip(classes, likeliest, strict=True)),
        )

    clean = outcome(explanation.image, explanation.logits)
    return Record(
        index=index,
        file=file,
        binary=binary,
        label=label,
        prediction=prediction,
        target=target,
        correct5=binary or label in dict(clean.top5),
        source_prob=clean.source_prob,
        target_prob=clean.target_prob,
        mask_area=(~explanation.keep[i]).double().mean().item(),
        outcomes={
            "pre-explanation": outcome(explanation.pre_explanation, explanation.pre_logits),
            "explanation": outcome(explanation.counterfactual, explanation.cf_logits),
        },
        top5=clean.top5,
        pixels=fingerprint(to_pil(image)),
        iterations=None if explanation.iterations is None else explanation.iterations[i].item(),
    )


def to_stored(image: Tensor, pre_explanation: Tensor, inpaint: float) -> Tensor:
    """The pre-explanation in float16, every pixel's change on its own side of ``inpaint`` when it is read again.

    image, pre_explanation: (C, H, W) in [0, 1].  Rounding to the nearest moves a few changes across the threshold,
    those that lie on it above all, as many do after whole steps of 1/255; these are moved back by units in the last
    place, an eighth of a grey level each.  Where that does not help, float32 is returned.
    """
    below = change_mask(image[None], pre_explanation[None])[0] < inpaint
    towards = (image - pre_explanation).sign()
    half = pre_explanation.half()
    for _ in range(ROUNDS):
        now = change_mask(image[None], from_stored(half)[None])[0] < inpaint
        if torch.equal(now, below):
            return half
        direction = torch.where(now == below, 0, torch.where(below, towards, -towards)).half()
        moved = np.nextafter(half.cpu().numpy(), (half + direction).cpu().numpy())
        half = torch.from_numpy(moved).to(half.device).clamp(0, 1)
    return pre_explanation


def from_stored(stored: Tensor) -> Tensor:
    """To float32; a float16 that a grey level rounds to is that level, so that what did not change has not."""
    if stored.dtype == torch.float32:
        return stored
    level = (stored.float() * 255).round() / 255
    return torch.where(level.half() == stored, level, stored.float())


def to_npy(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def read_stored(path: Path) -> Tensor:
    """(C, H, W) float32 in [0, 1].  Raises UnreadableImage for anything that ``to_npy`` does not write."""
    try:
        values = read_npy(path, LARGEST_NPY)
    except (OSError, ValueError) as error:
        raise UnreadableImage(path, str(error).removeprefix(f"{path}: ")) from None
    if values.dtype not in (np.float16, np.float32) or values.ndim != 3 or len(values) not in (1, 3):
        found = f"{values.dtype} {values.shape}"
        raise UnreadableImage(path, f"wanted all of float16 (3 or 1, H, W) in [0, 1], found {found}")
    if not (values.min() >= 0 and values.max() <= 1):
        raise UnreadableImage(path, f"wanted values in [0, 1], found {values.min()} to {values.max()}")
    return from_stored(torch.from_numpy(values.copy()))
