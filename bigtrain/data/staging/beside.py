"""Network reads beside the process that trains.

That process forks (workers, this), and the threads and locks of asynchronous libraries do not outlive a fork; one that
never reads from a network itself has none. It also stays free to give way while a server keeps silent.
"""

import multiprocessing
import multiprocessing.connection
import os
from collections.abc import Callable

from bigtrain.data.process import FollowParent
from bigtrain.data.staging.patience import POLL_S, Patience
from bigtrain.recipe.errors import DataError

DONE, SENTENCE, ERRNO = b"d", b"s", b"e"


def beside(work: Callable[[], bytes], patience: Patience) -> bytes:
    """Return what `work` returns, done in a forked process where this is the one that trains.

    Raises:
        DataError: as `work` does, or its process was killed.
        OSError: as `work` does.
    """
    if not patience.is_owner:
        return work()
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_tell, args=(work, theirs, os.getpid()), name="fetch-beside", daemon=True)
    process.start()
    theirs.close()
    try:
        while not ours.poll(POLL_S):
            patience.check()
        kind, result = (answer := ours.recv_bytes())[:1], answer[1:]
    except EOFError as error:
        raise DataError(
            "a process that fetches shards was killed; if memory ran out, lower data.num_workers, then start again"
        ) from error
    finally:
        process.kill()
        process.join()
        ours.close()
    if kind == SENTENCE:
        raise DataError(result.decode())
    if kind == ERRNO:
        raise OSError(int(result), os.strerror(int(result)))
    return result


def _tell(work: Callable[[], bytes], pipe: "multiprocessing.connection.Connection[bytes, bytes]", parent: int) -> None:
    FollowParent(parent)()
    try:
        answer = DONE + work()
    except DataError as error:
        answer = SENTENCE + str(error).encode()
    except OSError as error:
        answer = ERRNO + str(error.errno or 0).encode()
    pipe.send_bytes(answer)
