"""Every benchmark, one after another: what `make bench` runs.

Owns the list. Each benchmark is a process of its own, so that none inherits what another left behind;
tables come on standard output, `bench/results/<name>.json` is for programs. What must stay true: a
benchmark that fails does not hide those after it, and the exit status tells of it.
"""

import subprocess
import sys

NAMES = ("wire", "ingress", "serialization", "lstm", "fair", "buses")


def main() -> int:
    failed = []
    for name in NAMES:
        if subprocess.run([sys.executable, "-m", f"bench.{name}", *sys.argv[1:]]).returncode != 0:
            failed.append(name)
    if failed:
        print(f"bench: {', '.join(failed)} gave no figures; the reasons stand above", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
