"""Denoising diffusion models in guided-diffusion's checkpoint format; knows nothing of classifiers or attacks."""
