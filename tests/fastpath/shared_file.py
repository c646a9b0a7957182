"""A memory file for the tests of fastpath, as the arena makes one, but small and without a header."""

import mmap
import os


class SharedFile:
    """A memory file as the arena makes one, small and without a header: descriptor and bytes."""

    def __init__(self, size: int) -> None:
        self.fd = os.memfd_create("tickpath-test", 0)
        os.ftruncate(self.fd, size)
        self.memory = memoryview(mmap.mmap(self.fd, size))
