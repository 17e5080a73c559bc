"""Training diffusion models and classifiers. Imports evaluation, data and method."""
