"""Concurrent clients."""

import threading


class Background:
    """Threads that run work(number); join() gives the results, or raises the first exception of any."""

    def __init__(self, count, work):
        self._results, self._failures = [None] * count, []
        self._threads = [threading.Thread(target=self._guarded, args=(work, number)) for number in range(count)]
        for thread in self._threads:
            thread.start()

    def _guarded(self, work, number):
        try:
            self._results[number] = work(number)
        except BaseException as failure:
            self._failures.append(failure)

    def is_running(self):
        return any(thread.is_alive() for thread in self._threads)

    def join(self):
        for thread in self._threads:
            thread.join()
        if self._failures:
            raise self._failures[0]
        return self._results


def run_threads(count, work):
    return Background(count, work).join()
