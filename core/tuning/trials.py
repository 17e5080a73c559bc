"""A trial: one attack on all pictures, seen after several numbers of iterations and refined with several noises."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ace_counterfactuals.core.evaluation.metrics.transfer import Verdicts, judge, transfer
from ace_counterfactuals.core.evaluation.metrics.validity import DENOISED, still_flips
from ace_counterfactuals.core.method.attacking import attack
from ace_counterfactuals.core.method.config import OF_REFINEMENT, SAME
from ace_counterfactuals.core.method.explain import conclude
from ace_counterfactuals.core.method.noise import image_noise
from ace_counterfactuals.core.method.objectives import predict
from ace_counterfactuals.core.method.progress import Progress
from ace_counterfactuals.core.method.task import Batch
from ace_counterfactuals.core.tuning.ground import Ground, with_flags
from ace_counterfactuals.core.tuning.strength import DRAWS, noise_flags, share_of, steps_of

FLAGS = ("timestep_respacing", "sampling_time_fraction", "attack_step", "dist_l1", "attack_iterations")
"""What tells trials apart."""
SEEN = (4, 2, 1)  # a trial is seen after its iterations over each of these
LESS = 3  # the refinement is tried with the attack's noise, and with that over this
AS_ATTACK = {"refine_timestep_respacing": SAME, "refine_time_fraction": -1.0}
ENOUGH = 0.95  # of the pictures, that a setting is to flip

Row = dict[str, Any]
"""A setting with what it does: FLAGS of the trial but for the iterations that it is seen after, ``at_most`` those of
the trial, the refinement's; flip, l1, validity and transfer, None if unknown."""


def looks(ground: Ground, most: int) -> list[int]:
    """After how many iterations a trial is seen: an attack passes through the results of all shorter ones, if its
    distances have no schedule."""
    scheduled = ground.config.attack.dist_schedule != "none"
    return [most] if scheduled else sorted({max(1, most // n) for n in SEEN})


def refinements(ground: Ground, setting: Row) -> list[Row]:
    """Settings of the refinement: the attack's own, and less noise; where the search starts, as it was given."""
    sampling, chain = ground.config.sampling, ground.denoiser.process.config.diffusion_steps
    share, _ = share_of(with_flags(ground.config, setting | AS_ATTACK), ground)
    less = noise_flags(max(share / LESS, 1 / chain), steps_of(ground), chain)
    found = [AS_ATTACK, {own: less[name] for own, name in OF_REFINEMENT.items()}]
    if all(setting[name] == getattr(sampling, name) for name in OF_REFINEMENT.values()):
        found.insert(0, {name: getattr(sampling, name) for name in OF_REFINEMENT})
    return [flags for i, flags in enumerate(found) if flags not in found[:i]]


class Seen(NamedTuple):
    """Of N pictures.  flip: (N,) bool; l1: (N,) float64; valid: (N,) share of the fresh passes that it still flips
    after; verdicts: of each unseen network."""

    flip: Tensor
    l1: Tensor
    valid: Tensor
    verdicts: tuple[Verdicts, ...]


def attempt(ground: Ground, number: int, setting: Row, fresh: Row) -> list[Row]:
    """The rows of a trial.  fresh: settings of the filter that flips are to outlast, the same for all trials."""
    seen, rows = looks(ground, setting["attack_iterations"]), []
    found = [pre_explanations(part, seen) for part in ground.parts(setting)]
    for refined in refinements(ground, setting):
        under, judges = ground.parts(setting | refined), ground.parts(fresh)
        for look in seen:
            views = [see(*pair, pictures[look], ground) for *pair, pictures in zip(under, judges, found, strict=True)]
            own = setting | {"attack_iterations": look, "at_most": setting["attack_iterations"]}
            rows.append({"trial": number, **own, **refined, **figures(views)})
    return rows


def pre_explanations(part: Batch, seen: Sequence[int]) -> dict[int, Tensor]:
    """After each of these numbers of iterations, of one attack; where it ends before, as it ended."""
    passed: dict[int, Tensor] = {}

    def on_iteration(at: Progress) -> None:
        if at.iteration in seen:
            passed[at.iteration] = at.found

    last, _ = attack(part, on_iteration)
    return {look: passed.get(look, last) for look in seen}


@torch.no_grad()
def see(part: Batch, fresh: Batch, pre_explanation: Tensor, ground: Ground) -> Seen:
    """Refine pre-explanations, and have them judged."""
    explained = conclude(part, pre_explanation)
    picture, now = explained.counterfactual, predict(explained.cf_logits)
    target = torch.full_like(now, -1) if part.target is None else part.target
    decided = torch.stack([part.prediction, now, target], 1).tolist()
    flip = torch.from_numpy(still_flips(now.cpu().numpy(), decided))
    valid = torch.zeros(len(now), dtype=torch.float64)
    for draw in range(DRAWS):
        noise = image_noise(part.task.seed, part.indices, DENOISED + draw)
        again = predict(part.task.classifier(fresh.filter(picture, noise).clamp(0, 1)))
        valid += torch.from_numpy(still_flips(again.cpu().numpy(), decided)) / DRAWS
    verdicts = [
        judge(part.prediction, now, target, network(part.image), network(picture)) for network in ground.unseen.values()
    ]
    l1 = (picture - part.image).cpu().double().abs().flatten(1).mean(1)
    return Seen(flip, l1, valid, tuple(verdicts))


def figures(views: Sequence[Seen]) -> Row:
    """Over all pictures; validity and transfer are shares of the flips."""
    flip, l1, valid = (torch.cat(column) for column in list(zip(*views, strict=True))[:3])
    of_each = zip(*(view.verdicts for view in views), strict=True)
    verdicts = [Verdicts(*map(torch.cat, zip(*own, strict=True))) for own in of_each]
    flips = int(flip.sum())
    return {
        "n": len(flip),
        "flip": flips / len(flip),
        "l1": l1.mean().item(),
        "validity": valid[flip].mean().item() if flips else None,
        "transfer": transfer(verdicts).share,
    }


def choose(rows: Sequence[Row]) -> Row:
    """Of the settings that flip ENOUGH, or as many as any, those that convince most; of these the least change.

    What convinces is transfer, where it is known, and else validity.  A picture more or less makes no difference.
    """
    one = 1.01 / rows[0]["n"]
    by = "transfer" if any(row["transfer"] is not None for row in rows) else "validity"
    enough = min(ENOUGH, max(row["flip"] for row in rows))
    able = [row for row in rows if row["flip"] >= enough]
    best = max(row[by] or 0 for row in able)
    return min((row for row in able if (row[by] or 0) >= best - one), key=lambda row: row["l1"])
