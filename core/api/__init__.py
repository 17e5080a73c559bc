"""What a user's program imports, by ``from ace_counterfactuals import ACE``; core/cli has the same for a command line.

Imports evaluation, runs, data, method and models.
"""
