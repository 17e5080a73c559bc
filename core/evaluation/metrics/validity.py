"""The share of flipped counterfactuals that still flip after one more pass of the attack's filter, with fresh noise:
validity after denoising, D.Val. Adversarial noise is washed out by the filter, a change of meaning is not.

    python evaluate.py --output_path OUT --exp_name exp --denoised_validity True

Between 0 and 1; higher is better. It takes the run's own classifier and diffusion model, whose paths and digests are in
`config.yaml`, and one pass of the filter a picture, which is why it is only computed on demand. The noise depends on
`--seed` and the picture's number alone. It says how robust a counterfactual is to this filter; the attack was made
through the same one, so it is no judgement from outside, as transfer is.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ace_counterfactuals.core.base.settings import blaming, flag, from_dict
from ace_counterfactuals.core.evaluation.judges import explained, refuse_recorded
from ace_counterfactuals.core.evaluation.metric import HIGHER, SHARE, Metric, Quantity, register
from ace_counterfactuals.core.evaluation.model import FLIPPED, Figure
from ace_counterfactuals.core.evaluation.session import Judge, Network, Session, Subject, Unavailable
from ace_counterfactuals.core.method.checks import check_logits
from ace_counterfactuals.core.method.filtering import Filter
from ace_counterfactuals.core.method.noise import image_noise
from ace_counterfactuals.core.method.objectives import predict
from ace_counterfactuals.core.method.task import Classifier, chain_of
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.core.runs.setup import diffusion_of, load_denoiser

DENOISED = 2**31  # the purpose of the noise, beyond every iteration of an attack


def open_run(session: Session, subject: Subject) -> dict[str, Network]:
    """The run's filter, and its classifier after it."""
    if not session.config.networks.denoised_validity:
        return {}
    config, wanted = from_dict(MainConfig, subject.stored.flags), subject.digest_of("model_path")
    path = config.weights.model_path
    refuse_recorded(subject, path, "model_path", "denoised_validity")
    with blaming("denoised_validity"):
        found = session.digest(path)
        diffusion, steps = chain_of(config.sampling, diffusion_of(config))
    if wanted and found != wanted:
        raise Unavailable("denoised_validity", f"{path} is not the file any more that the run was made with")
    if not steps:
        raise Unavailable("denoised_validity", "the run's filter takes no step")
    network = explained(session, subject)
    session.named("denoised_validity", path, "model_path")

    def load() -> Callable[..., Tensor]:
        filter_ = Filter(diffusion, load_denoiser(config, session.device), steps)
        return partial(predict_denoised, subject, network.load(), filter_)

    settings = {**asdict(config.sampling), **asdict(config.diffusion), **asdict(config.model)}
    what = {"model": found, "settings": settings, "image_size": config.data.image_size, "seed": session.seed}
    what["target"] = config.data.label_target
    if config.model.class_cond:
        what["experiment"] = subject.stored.name  # which tells the target of a picture
    return {"": Network(load, {**network.what, **what}, path)}


def predict_denoised(
    subject: Subject, classifier: Classifier, filter_: Filter, image: Tensor, *, indices: list[int]
) -> Tensor:
    """(N,) int64, the classifier's predictions on the filtered pictures."""
    if subject.stored.flags.get("class_cond"):
        pairs = [subject.stored.by_name[f"{index:07d}.png"] for index in indices]
        targets = torch.tensor([subject.decisions(pair)[2] for pair in pairs], device=image.device)
        filter_ = replace(filter_, classes=targets)
    logits = classifier(filter_(image, image_noise(subject.session.seed, indices, DENOISED)))
    check_logits(logits, "the denoised counterfactual", indices)
    return predict(logits)


def still_flips(predictions: np.ndarray, decided: Sequence[tuple[int, int, int]]) -> np.ndarray:
    """(N,) bool: whether a denoised counterfactual has its target, or, untargeted, is not what the original is.

    predictions: (N,) on the denoised ones.  decided: of each picture the predictions on original and counterfactual,
    and the target, -1 where it was free.
    """
    source, _, target = np.array(decided).reshape(-1, 3).T
    return np.where(target >= 0, predictions == target, predictions != source)


def figures(metric: Metric, subject: Subject) -> Iterator[Figure]:
    """The share, with Wilson's interval; whether each flips is kept for paired differences."""
    pairs = subject.of(FLIPPED)
    predictions = metric.features(subject, pairs)[0][:, 0] if pairs else np.zeros(0)
    valid = still_flips(predictions, [subject.decisions(pair) for pair in pairs])
    subject.keep(VALIDITY.key, pairs, valid)
    yield VALIDITY.mean(valid, FLIPPED.name, subject.session.seed)


MEANING = "Share of flipped counterfactuals that still flip after one more pass of the filter."
VALIDITY = Quantity("denoised_validity", "D.Val", HIGHER, SHARE, MEANING, share=True)
HELP = "D.Val: filter each flipped counterfactual once more, by the run's own diffusion model"
RUN = Judge("validity", open_run, {"denoised_validity": flag(False, HELP)}, dtype="<f8", numbered=True)
register(Metric("validity", 64, (VALIDITY,), __doc__, FLIPPED, RUN, asked="changed", figures=figures))
