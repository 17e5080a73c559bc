"""Face verification accuracy (FVA), and face similarity: the mean cosine of VGGFace2's features (FS)."""

from ace_counterfactuals.core.cli.parsing import run_script

if __name__ == "__main__":
    run_script("compute", "FVA")
