"""Training diffusion models and classifiers. Imports data and method."""
