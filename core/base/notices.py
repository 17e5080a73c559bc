"""What the user may want to know, and where a process runs; nothing here imports torch."""

import logging
import os
import re
import socket
from datetime import datetime, timezone

NOTICES = logging.getLogger("ace_counterfactuals")


def notice(message: str) -> None:
    """Tell the user, at level INFO: programs print it on stderr, and a host program shows it if it wants."""
    NOTICES.info(message)


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def host_name() -> str:
    """This computer's name, fit for a file's name."""
    return re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname()) or "host"


def owner() -> str:
    """HOST-PID, which names the files that a process has to itself."""
    return f"{host_name()}-{os.getpid()}"


def is_running(pid: int) -> bool:
    """Whether a process of this computer, other than this one, has the number."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
