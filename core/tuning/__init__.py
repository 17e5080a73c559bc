"""Which strength suits a classifier, its pictures and a diffusion model: found on a few pictures, within a budget.

Imports preflight, evaluation, runs, data, method and models.
"""
