"""Importing this makes Ctrl-C one line from here on, also in the seconds that it takes to import torch."""

import sys

INTERRUPTED = "interrupted; what was finished is kept, and the same command continues"


def excepthook(kind, error, trace) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print(INTERRUPTED, file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = excepthook
