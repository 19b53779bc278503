"""Memory that a server has freed goes back to the system, so that it does not grow for days."""

import ctypes
from contextlib import suppress

M_MMAP_THRESHOLD = -3  # in malloc.h of glibc
LARGE_BYTES = 1 << 20


def return_large_blocks() -> None:
    """Let every block of 1 MiB or more go back to the system once it is freed; of glibc only.

    By itself, glibc raises that bound with each larger block that is freed, to 32 MiB at most. It
    then cuts blocks of pictures and distances from the heaps of the threads, where what lives
    longer keeps them from shrinking again. Call it before threads are started.

    Source: mallopt(3), M_MMAP_THRESHOLD.
    """
    with suppress(OSError, AttributeError, TypeError):  # another C library, or none to ask
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
