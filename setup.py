"""Builds what pyproject.toml cannot say: the Cython extensions and the protobuf messages."""

import re
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
CONTRACT = ROOT / "engine" / "contract"

extensions = [
    Extension(
        f"fastpath.{path.stem}",
        [f"fastpath/{path.name}"],
        depends=[str(each.relative_to(ROOT)) for each in sorted((ROOT / "fastpath").glob("*.[ph]*"))],
        # No contraction and no fast-math: results must not depend on how a compiler groups sums.
        extra_compile_args=["-O2", "-std=c11", "-ffp-contract=off", "-Wno-unused-function", "-Wno-psabi"],
    )
    for path in sorted((ROOT / "fastpath").glob("*.pyx"))
]


def compile_messages() -> None:
    """proto/**/*.proto -> engine/contract/**/*_pb2.py, importable as engine.contract.ml.envelope_pb2 and so on."""
    from grpc_tools import protoc

    protos = sorted(str(path.relative_to(ROOT / "proto")) for path in (ROOT / "proto").rglob("*.proto"))
    arguments = ["protoc", f"-I{ROOT / 'proto'}", f"--python_out={CONTRACT}", f"--pyi_out={CONTRACT}", *protos]
    if protoc.main(arguments) != 0:
        raise SystemExit("protoc refused proto/; see its message above")
    for path in CONTRACT.rglob("*_pb2.py*"):
        text = path.read_text()
        path.write_text(
            re.sub(r"^from (common|ml|trading) import", r"from engine.contract.\1 import", text, flags=re.M)
        )
        (path.parent / "__init__.py").touch()


class BuildWithMessages(build_py):
    def run(self):
        compile_messages()
        super().run()


if __name__ == "__main__":
    compile_messages()
    setup(
        ext_modules=cythonize(
            extensions,
            language_level=3,
            compiler_directives={
                "boundscheck": False,
                "wraparound": False,
                "cdivision": True,
                "freethreading_compatible": False,
            },
        ),
        cmdclass={"build_py": BuildWithMessages},
    )
