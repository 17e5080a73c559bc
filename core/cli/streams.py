"""Standard streams that nobody may be reading: what is computed is worth more than what is told of it."""

import io
import os
import sys


class Lenient(io.FileIO):
    """A stream that drops what it is refused with the error ``dropped``."""

    def __init__(self, descriptor: int, dropped: type[OSError]):
        super().__init__(descriptor, "w", closefd=False)
        self.dropped = dropped

    def write(self, data) -> int | None:
        try:
            return super().write(data)
        except self.dropped:
            return len(data)


def settle_streams() -> None:
    """Give closed streams a place, which a file would take otherwise, and let readers of the others go away.

    Of stdout a reader that is gone is no error, but a full disk is; nothing that happens to stderr is one.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 (as long as the process)
    for name, dropped in (("stdout", BrokenPipeError), ("stderr", OSError)):
        stream = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__"):  # nobody has put another in its place
            stream.flush()
            raw, lines = Lenient(stream.fileno(), dropped), stream.line_buffering
            buffer = io.BufferedWriter(raw)
            wrapper = io.TextIOWrapper(buffer, stream.encoding, "backslashreplace", line_buffering=lines)
            setattr(sys, name, wrapper)
