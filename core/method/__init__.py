"""The paper: explain, attacks, gradients, filtering, objectives, noise. Knows no files; imports base, models and
guided_diffusion."""
