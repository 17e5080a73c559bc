"""Figures of result folders, with how sure they are: a metric is a file of ``metrics/`` that registers itself.

Imports base, data, method, runs and models.
"""
