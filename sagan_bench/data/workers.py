"""The processes that decode: forked from a server that has read the sources, and ended in time."""

import multiprocessing
import os
import signal
import threading
from multiprocessing import forkserver
from multiprocessing.context import BaseContext

from sagan_bench.core.registry import SOURCES


def decoding_processes() -> BaseContext:
    """Start, once, the process that decoding workers are forked from.

    Not forked from this one: that would carry torch's threads, and this build's lock, along.  Nor
    spawned: each would import everything anew.
    """
    context = multiprocessing.get_context("forkserver")
    modules = [SOURCES[name].__module__ for name in SOURCES]
    context.set_forkserver_preload([name for name in modules if name.startswith("sagan_bench.")])
    forkserver.ensure_running()
    return context


def start_worker() -> None:
    """Set up a decoding process: Ctrl-C is its parent's to handle, and it ends with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A parent killed by SIGKILL closes no queue: its workers would wait for tasks for ever.
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)
