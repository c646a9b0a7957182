"""Cython modules that are no part of the engine: loops of a benchmark or a test, compiled where they are asked for.

Owns the way from a source beside its user to a loaded module; run by benchmarks and tests. Writes a folder that the
caller gives. What must stay true: what such a module cimports is the engine's own, and the engine's build is never
touched.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
BUILD = """
import sys
from Cython.Build import cythonize
from setuptools import Extension, setup

headers, flag, *names = sys.argv[1:]
extensions = [
    Extension(name, [name.replace(".", "/") + ".pyx"], include_dirs=[headers],
              extra_compile_args=["-std=c11", "-O2", "-g0", flag])
    for name in names
]
directives = {"boundscheck": False, "wraparound": False, "cdivision": True}
setup(name="built-beside", packages=[], script_args=["-q", "build_ext", "--inplace"],
      ext_modules=cythonize(extensions, language_level=3, compiler_directives=directives, quiet=True))
"""


def build(folder: Path, flag: str, *names: str) -> None:
    """Compiles the folder's Cython modules in place; what they cimport and it lacks is the engine's."""
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(ROOT / "fastpath"), flag, *names],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{folder}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"the build of {', '.join(names)} failed:\n{done.stdout}\n{done.stderr}"


def module(source: Path, folder: Path) -> ModuleType:
    """The .pyx, compiled in the folder and loaded under its own name."""
    shutil.copy(source, folder)
    build(folder, "-DNDEBUG", source.stem)
    spec = importlib.util.spec_from_file_location(source.stem, next(folder.glob(f"{source.stem}.*.so")))
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found
