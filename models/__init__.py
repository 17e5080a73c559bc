"""Networks: the only reader of weight files, sources of diffusion models, formats of classifiers, and judges.

It may import ``guided_diffusion`` and ``core.base``.
"""
