"""What each figure is called, which way is better, and what it says."""

from dataclasses import dataclass

from ace_counterfactuals.core.evaluation.model import Figure

INFINITY = float("inf")
SHARE, COSINE, LENGTH = (0.0, 1.0), (-1.0, 1.0), (0.0, INFINITY)
COUT = (-1.02, 1.02)  # the widths of its steps add up to 1.02 at most


@dataclass(frozen=True)
class Meaning:
    """span: that the figure, and so its interval, is within."""

    name: str
    better: str
    span: tuple[float, float]
    text: str


LOWER, HIGHER = "lower", "higher"
MEANINGS = {
    "fid": Meaning("FID", LOWER, LENGTH, "How unlike real pictures the counterfactuals are, as a set, to Inception."),
    "sfid": Meaning("sFID", LOWER, LENGTH, "FID between originals of one half and counterfactuals of the other."),
    "fid_infinity": Meaning("FID∞", LOWER, LENGTH, "What FID tends to with ever more pictures: without its bias."),
    "fva": Meaning("FVA", HIGHER, SHARE, "Share of faces that VGGFace2 takes for the same person."),
    "fs": Meaning("FS", HIGHER, COSINE, "Mean cosine of VGGFace2's features before and after; 1 is the same face."),
    "mnac": Meaning("MNAC", LOWER, LENGTH, "Mean number of a face's attributes that an oracle decides otherwise."),
    "cd": Meaning("CD", LOWER, LENGTH, "How far attributes change together otherwise than they occur together."),
    "cout": Meaning("COUT", HIGHER, COUT, "Whether few of the changed pixels carry the decision; about -1 to 1."),
    "cout_normalised": Meaning("COUT, normalised", HIGHER, COSINE, "COUT over its total width."),
    "s3": Meaning("S3", HIGHER, COSINE, "Mean cosine of SimSiam's outputs before and after; 1 is the same picture."),
    "lpips": Meaning("σL", HIGHER, LENGTH, "Mean LPIPS between the experiments' counterfactuals of a picture."),
    "flip_rate": Meaning("FR", HIGHER, SHARE, "Share of pictures whose counterfactual reaches its target."),
    "l1": Meaning("l1", LOWER, SHARE, "Mean absolute change of a value in [0, 1]."),
    "l2": Meaning("l2", LOWER, LENGTH, "Euclidean length of the change."),
    "l_inf": Meaning("l∞", LOWER, SHARE, "Largest absolute change of a value in [0, 1]."),
    "mask_area": Meaning("mask area", LOWER, SHARE, "Share of pixels that the refinement could change."),
    "frechet": Meaning("Frechet distance ({})", LOWER, LENGTH, "FID's arithmetic in these features; not FID."),
    "split_frechet": Meaning("split Frechet distance ({})", LOWER, LENGTH, "sFID's arithmetic in these features."),
    "frechet_infinity": Meaning("Frechet distance∞ ({})", LOWER, LENGTH, "What it tends to with ever more pictures."),
    "transfer": Meaning(
        "transfer ({})", HIGHER, SHARE, "Share of flipped pictures that an unseen classifier flips, too."
    ),
    "movement": Meaning(
        "target's rise ({})", HIGHER, COSINE, "Mean rise of an unseen classifier's target probability."
    ),
}


def key_of(key: str, network: str) -> str:
    return f"{key}_{network.replace(' ', '_')}" if network else key


def make_figure(
    key: str, value: float | None, bounds: tuple[float, float] | None, *, network: str = "", **fields
) -> Figure:
    """network: what stands in the name of a figure that there may be several of."""
    meaning = MEANINGS[key]
    least, most = meaning.span
    low, high = (min(value, max(least, bounds[0])), max(value, min(most, bounds[1]))) if bounds else (None, None)
    return Figure(
        key=key_of(key, network),
        name=meaning.name.format(network),
        value=value,
        low=low,
        high=high,
        better=meaning.better,
        meaning=meaning.text,
        **fields,
    )
