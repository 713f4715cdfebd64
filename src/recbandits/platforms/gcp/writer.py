"""Many who write a little become one who writes much: what comes while a write is under way goes together in the next.

A transaction costs as much for hundreds of rows as for one, and a warehouse takes only a few at a time.
"""

import queue
import threading
import time
from concurrent.futures import Future

import pyarrow as pa

from recbandits.platforms.protocol import PlatformError

_TOGETHER = 1_000  # writes in one transaction, at most


class Writer:
    """One thread that writes for all others; for use in a `with` block, whose end writes what is left.

    Args:
      insert: function of dict from name of a table to pyarrow.Table with a column `digest`; it adds the rows that are
        not there in one transaction, and gives the digests of those that are new.
      pause: seconds that a write waits for others.
    """

    def __init__(self, insert, pause=0.0):
        self._insert, self._waiting, self._pause = insert, queue.SimpleQueue(), pause
        self._ended = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._waiting.put(None)
        self._ended.wait()

    def write(self, batches):
        """Write what `insert` takes; how many of the rows were new, once they are kept for good.

        Raises what `insert` raises.
        """
        answer = Future()
        self._waiting.put((batches, answer))
        return answer.result()

    def _run(self):
        while not self._ended.is_set():
            jobs = [self._waiting.get()]
            if jobs[0] is not None:
                time.sleep(self._pause)
            while jobs[-1] is not None and len(jobs) < _TOGETHER and not self._waiting.empty():
                jobs.append(self._waiting.get())
            self._serve([job for job in jobs if job is not None])
            if jobs[-1] is None:
                self._ended.set()

    def _serve(self, jobs):
        try:
            new = set(self._insert(_together([batches for batches, _ in jobs]))) if jobs else set()
        except Exception as error:
            if len(jobs) == 1 or isinstance(error, PlatformError):
                for _, answer in jobs:
                    answer.set_exception(error)
            else:  # one of them is no table of ours, which is not the fault of the others
                for job in jobs:
                    self._serve([job])
            return
        for batches, answer in jobs:
            digests = new & _digests(batches)
            new -= digests  # of two that write the same the first has written it
            answer.set_result(len(digests))


def _together(jobs):
    names = dict.fromkeys(name for batches in jobs for name in batches)
    return {name: pa.concat_tables([batches[name] for batches in jobs if name in batches]) for name in names}


def _digests(batches):
    return {digest for batch in batches.values() for digest in batch["digest"].to_pylist()}
