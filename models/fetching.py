"""Files from an address: fetched once in a process, and to the disk."""

import contextlib
import os
import tempfile
import urllib.parse
import urllib.request
from functools import cache
from typing import BinaryIO

LIMIT = 4 * 2**30
BLOCK = 2**20


def fetch(url: str) -> BinaryIO:
    """The file of an address, to read from its beginning; it is fetched the first time, and gone with the process.

    blobfile knows gs://, az:// and https:// of Azure; other hosts are asked directly.  Raises OSError, also for a file
    of more than LIMIT bytes.
    """
    stream = os.fdopen(os.dup(_fetched(url)), "rb")
    stream.seek(0)
    return stream


@cache
def _fetched(url: str) -> int:
    """The descriptor, open as long as the process, of a file without a name, so that none is left behind."""
    try:
        with tempfile.TemporaryFile() as file, _remote(url) as remote:
            while file.tell() <= LIMIT and (block := remote.read(BLOCK)):
                file.write(block)
            if file.tell() > LIMIT:
                raise _TooLarge(f"is larger than {LIMIT / 2**30:g} GiB, the limit of what is fetched; give a path")
            file.flush()
            return os.dup(file.fileno())
    except (FileNotFoundError, _TooLarge):
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        raise OSError(f"{type(error).__name__}: {reason}") from None  # blobfile and its clients have types of their own


class _TooLarge(OSError):
    pass


def _remote(url: str) -> BinaryIO:
    scheme, host = urllib.parse.urlsplit(url)[:2]
    if scheme in ("http", "https") and not host.endswith(".blob.core.windows.net"):
        return urllib.request.urlopen(url, timeout=30)
    import blobfile

    with contextlib.suppress(TypeError):  # versions that have no limit
        blobfile.configure(retry_limit=4, retry_log_threshold=10)  # without a limit it would wait for ever
    return blobfile.BlobFile(url, "rb")
