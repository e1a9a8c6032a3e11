"""Figures drawn by a second process, while the first one still computes."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:  # it loads matplotlib, which bad input need not wait for
    from widelimit.report._drawing import Drawing

__all__ = ["Drawings"]


class Drawings:
    """Context manager: what is added is drawn in the background, and what is asked for is there at once.

    A process, because drawing is Python and would hold up the experiments of this one; it ends with this one,
    also if this one is killed.  A figure that it could not draw is drawn here: nothing depends on it but time.
    """

    def __init__(self) -> None:
        self.ours: Connection | None = None
        self.process: BaseProcess | None = None
        self.waiting: list[tuple[Mapping[str, Any], Future[Drawing]]] = []
        # One thread that talks to the process, so that neither waits for the other with a full pipe.
        self.thread = ThreadPoolExecutor(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.thread.shutdown(wait=False, cancel_futures=True)
        self._end()  # what is being drawn is given up
        self.thread.shutdown(wait=True)
        self._end()
        if self.ours is not None:
            self.ours.close()

    def _end(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.join()

    def add(self, figure: Mapping[str, Any]) -> None:
        """Have a figure drawn."""
        self.waiting.append((figure, self.thread.submit(self._exchange, figure)))

    def take(self, figure: Mapping[str, Any]) -> Drawing:
        """The drawing of a figure, drawn here and now if it was not added or came to nothing."""
        for added, future in self.waiting:
            if added == figure:
                with contextlib.suppress(EOFError, OSError):
                    return future.result()
        from widelimit.report._drawing import make_drawing

        return make_drawing(figure)

    def _exchange(self, figure: Mapping[str, Any]) -> Drawing:
        if self.ours is None:
            self._begin()
        assert self.ours is not None
        # not send(figure): where the pipe is broken its exception keeps a buffer that Python cannot free quietly
        self.ours.send_bytes(pickle.dumps(figure))
        return self.ours.recv()

    def _begin(self) -> None:
        # Not a fork: JAX's threads are running.
        context = multiprocessing.get_context("spawn")
        self.ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs,), daemon=True)
        with _interrupt_blocked():
            process.start()
        self.process = process
        theirs.close()


@contextlib.contextmanager
def _interrupt_blocked():
    """A process begun here never sees the Ctrl-C that is meant for the whole group: it is ended by its parent."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(connection: Connection) -> None:
    """Draw what comes until the other end is closed, behind the experiments in the queue for the cores."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from widelimit.report._drawing import make_drawing

    with contextlib.suppress(AttributeError, OSError):
        os.nice(5)
    while True:
        try:
            figure = connection.recv()
        except EOFError:
            return
        connection.send(make_drawing(figure))
