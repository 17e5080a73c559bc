"""What is written while the next pictures are attacked: by one thread, in the order in which it is given."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

AHEAD = 32  # pieces of work, of which most are a picture's files, that may wait


class Writer:
    """Does pieces of work one after the other while its user goes on; on leaving it, all is done that was given.

    After a piece that raises no other is done; the error is raised wherever the user turns to the writer next.
    """

    def __init__(self) -> None:
        self.pool, self.given = ThreadPoolExecutor(1, thread_name_prefix="write"), deque[Future[None]]()
        self.failed = False

    def give(self, work: Callable[[], object]) -> None:
        """Another piece; waits where too many do."""
        self.given.append(self.pool.submit(self._do, work))
        self.settle(AHEAD)

    def settle(self, left: int = 0) -> None:
        """Wait until at most so many pieces are ``left``."""
        while self.given and (len(self.given) > left or self.given[0].done()):
            self.given[0].result()
            self.given.popleft()

    def _do(self, work: Callable[[], object]) -> None:
        if self.failed:
            return
        try:
            work()
        except BaseException:
            self.failed = True
            raise

    def __enter__(self) -> "Writer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.settle()
        finally:
            self.pool.shutdown(cancel_futures=True)
