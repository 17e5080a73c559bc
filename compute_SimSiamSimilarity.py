"""SimSiam similarity (S3): the mean cosine of SimSiam's outputs on originals and counterfactuals."""

from ace_counterfactuals.core.cli.parsing import run_script

if __name__ == "__main__":
    run_script("compute", "SimSiamSimilarity")
