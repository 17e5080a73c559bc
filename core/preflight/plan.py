"""The plan that ``--check True`` prints: memory, calls of the U-Net and time, as set and for the choices around."""

from collections.abc import Iterator
from dataclasses import replace
from math import isqrt

from ace_counterfactuals.core.base.memory import free_bytes, in_bytes
from ace_counterfactuals.core.base.notices import in_time
from ace_counterfactuals.core.method.attacks import ATTACKS
from ace_counterfactuals.core.method.config import AttackConfig
from ace_counterfactuals.core.method.task import Batch
from ace_counterfactuals.core.preflight.model import Cost
from ace_counterfactuals.core.preflight.report import Report
from ace_counterfactuals.core.runs.plan import calls_of, needs_of, way_of

HEADER = ("at once", "gradient", "peak memory", "U-Net calls", "a picture", "all left")
WIDTHS = (9, 35, 14, 21, 11, 0)


def check_plan(report: Report, batch: Batch, size: int, pending: int, cost: Cost) -> None:
    """Say what each choice takes.  size: pictures at once.  cost: measured with these settings.

    Memory is what is added to the loaded networks.
    """
    needs, attack, steps = needs_of(batch), batch.task.attack, batch.filter.steps
    free, chosen = free_bytes(batch.image.device), way_of(attack, steps)
    rounds = attack.attack_iterations if ATTACKS[attack.attack_method] else 0
    rows = [HEADER]
    for count, name, settings in choices(attack, steps, size):
        way = way_of(settings, steps)
        share = way.effort / chosen.effort if chosen.effort else 1
        each = rounds * cost.gradient * share + cost.refinement
        peak = needs.peak(way, count)
        forward, backward = calls_of(settings, steps, rounds)
        calls = f"{forward + batch.refiner.steps} + {backward} back"
        much = in_bytes(peak) + ("" if peak <= free else " (!)")
        rows.append((str(count), name, much, calls, in_time(each), in_time(each * pending)))
    lines = report.sections["cost"]
    lines.append(f"the plan, {in_bytes(needs.kept)} kept by a step for each picture, {in_bytes(free)} of memory free:")
    lines += ["".join(f"{cell:<{width}}" for cell, width in zip(row, WIDTHS, strict=True)).rstrip() for row in rows]
    if any("(!)" in row[2] for row in rows):
        lines.append("(!) more than is free")


def choices(attack: AttackConfig, steps: int, size: int) -> Iterator[tuple[int, str, AttackConfig]]:
    """Pictures at once, words, and settings: those chosen, others of the size, and other ways to a gradient.

    The last are left out where calls of the whole U-Net do not tell what they take.
    """
    yield size, f"{named(attack, steps)}, as set", attack
    for other in (size // 2, 2 * size):
        if other:
            yield other, named(attack, steps), attack
    through = ATTACKS[attack.attack_method] and attack.attack_joint and not attack.attack_joint_shortcut and steps > 1
    whole = not attack.attack_student and attack.attack_deep_every == 1
    plain = replace(attack, attack_joint_checkpoint=False, attack_filter="chain")
    stored = [
        replace(plain, attack_joint_checkpoint=True, attack_checkpoint_backward_steps=segment)
        for segment in sorted({1, isqrt(steps)})
    ]
    for settings in [plain, *stored, replace(plain, attack_filter="one-step")] if through and whole else []:
        if way_of(settings, steps) != way_of(attack, steps):
            yield size, named(settings, steps), settings


def named(attack: AttackConfig, steps: int) -> str:
    """The way to a gradient in words."""
    way = way_of(attack, steps)
    if not way.backward:
        return "by the shortcut" if way.forward else "not through the filter"
    if way.states:
        return f"checkpointed, {way.graph} at a time"
    if attack.attack_filter == "one-step":
        return "one step, by a student" if attack.attack_student else "one step"
    return f"chain of {way.graph}" + (", deep features kept" if attack.attack_deep_every > 1 else "")
