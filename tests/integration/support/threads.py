"""Clients at the same time."""

import threading


class Background:
    """Threads that run work(number) until they are joined; the first exception of any is raised there."""

    def __init__(self, count, work):
        self._failures = []
        self._threads = [threading.Thread(target=self._guarded, args=(work, number)) for number in range(count)]
        for thread in self._threads:
            thread.start()

    def _guarded(self, work, number):
        try:
            work(number)
        except BaseException as failure:
            self._failures.append(failure)

    def join(self):
        for thread in self._threads:
            thread.join()
        if self._failures:
            raise self._failures[0]


def run_threads(count, work):
    Background(count, work).join()
