"""From an explanation to what is stored of each picture: its record, and its pictures with 8 bits."""

import torch
from torch import Tensor

from ace_counterfactuals.core.data.pictures import to_pil
from ace_counterfactuals.core.method.explain import Explanation
from ace_counterfactuals.core.method.filtering import change_mask
from ace_counterfactuals.core.method.objectives import predict, probabilities
from ace_counterfactuals.core.runs.floats import to_npy, to_stored
from ace_counterfactuals.core.runs.layout import Pictures, fingerprint
from ace_counterfactuals.core.runs.records import KINDS, Likeliest, Outcome, Record


def draw_pictures(explanation: Explanation, i: int, *, inpaint: float | None = None) -> Pictures:
    """The i-th picture of a batch, with what was found for it.

    inpaint: where the pre-explanation is to be kept as numbers, too, the threshold of the mask.
    """
    image, noised = explanation.image[i], to_pil(explanation.noised[i])
    shown = {"pre-explanation": explanation.pre_explanation[i], "explanation": explanation.counterfactual[i]}
    contents = {}
    for kind in KINDS:
        mask = change_mask(image[None], shown[kind][None])[0]
        contents[kind] = {"CF": to_pil(shown[kind]), "Noise": noised, "SM": to_pil(mask)}
    numbers = None if inpaint is None else to_npy(to_stored(image, explanation.pre_explanation[i], inpaint))
    return Pictures(to_pil(image), contents, numbers)


def draw_refined(explanation: Explanation, i: int) -> Pictures:
    """The i-th picture of a batch that was refined again; its mask is 1 where pixels are kept, as the original's."""
    drawn = {"CF": explanation.counterfactual, "Noise": explanation.noised, "SM": explanation.keep.float()}
    return Pictures(None, {"explanation": {name: to_pil(pictures[i]) for name, pictures in drawn.items()}})


def make_record(explanation: Explanation, i: int, *, index: int, file: str, label: int) -> Record:
    """The record of the i-th picture of a batch."""
    binary = explanation.logits.ndim == 1
    prediction = explanation.prediction[i].item()
    target = -1 if explanation.target is None else explanation.target[i].item()
    clean = probabilities(explanation.logits[i : i + 1])[0]
    image = explanation.image[i]

    def outcome(changed: Tensor, logits: Tensor) -> Outcome:
        logits = logits[i : i + 1]
        probability, now, change = probabilities(logits)[0], predict(logits).item(), (image - changed[i]).abs()
        best = top5(probability)
        classes = [label for label, _ in best]
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
            top5=best,
        )

    return Record(
        index=index,
        file=file,
        binary=binary,
        label=label,
        prediction=prediction,
        target=target,
        correct5=binary or label in [known for known, _ in top5(clean)],
        source_prob=clean[prediction].item(),
        target_prob=clean[target].item() if target >= 0 else None,
        mask_area=(~explanation.keep[i]).double().mean().item(),
        outcomes={
            "pre-explanation": outcome(explanation.pre_explanation, explanation.pre_logits),
            "explanation": outcome(explanation.counterfactual, explanation.cf_logits),
        },
        top5=top5(clean),
        pixels=fingerprint(to_pil(image)),
    )


def top5(probability: Tensor) -> Likeliest:
    values, classes = torch.topk(probability, min(5, len(probability)))
    return tuple(zip(classes.tolist(), values.tolist(), strict=True))
