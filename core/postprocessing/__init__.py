"""Stored pre-explanations refined again, and sweeps over settings. Imports evaluation and runs."""
