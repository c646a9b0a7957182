"""What is told of the host."""

import os
import subprocess
import sys

from bench import host

SPIN = "import time\nwhile time.process_time() < 0.4: pass\nprint('spun', flush=True)\ninput()"


def test_processor_time_counts_whole_families_running_or_reaped():
    shell = subprocess.Popen(
        ["sh", "-c", f'{sys.executable} -c "{SPIN}" < /dev/null; exec {sys.executable} -c "{SPIN}"'],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert shell.stdin is not None
    assert shell.stdout is not None
    assert [shell.stdout.readline(), shell.stdout.readline()] == [b"spun\n", b"spun\n"]
    assert 0.75 <= host.used_s([shell.pid]) < 1.6  # two times 0.4, and up to four ticks are cut off
    assert host.used_s([os.getpid()]) >= host.used_s([shell.pid])
    shell.communicate(b"\n")


def test_description_names_the_kind_of_host_and_not_the_host():
    found = host.describe()
    assert found["cores"] == os.cpu_count()
    assert os.uname().nodename not in host.line(found)
    assert set(found["packages"]) == set(host.PACKAGES)
