"""The commands: a table of names, each a module of its own that is imported only when it is asked for.

Owns the way from a command line to a module: every one has `add_arguments(parser)` and
`main(arguments) -> exit status`. Runs in the process that a person started. What must stay true:
`--help` and a mistyped command import nothing of the engine, and an error that the engine raised on
purpose ends as its text on standard error and exit status 1, never as a traceback.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Callable
from difflib import get_close_matches

COMMANDS = {
    "run": ("engine.cli.run", "run the engine"),
    "check": ("engine.cli.check", "say what is wrong with configuration, models, buses and host"),
    "feed": ("engine.cli.feed", "send price bars as feature vectors"),
    "replay": ("engine.cli.replay", "answer a recorded input again, to the bit"),
    "explain": ("engine.cli.explain", "say how one answer on a tape came about"),
    "top": ("engine.cli.top", "where the time of a vector goes in a running engine, live"),
    "demo": ("engine.cli.demo", "the engine on bundled market data, without any server"),
    "token": ("engine.cli.token", "make a signed token, or a key pair, for trying things out"),
}


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview(), file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    name = arguments[0]
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, n=1)
        known = f"did you mean {near[0]}?" if near else f"known: {', '.join(COMMANDS)}"
        print(f"python -m engine: no command {name!r}; {known}", file=sys.stderr)
        return 2
    module, help = COMMANDS[name]
    command = importlib.import_module(module)
    parser = argparse.ArgumentParser(prog=f"python -m engine {name}", description=help, allow_abbrev=False)
    command.add_arguments(parser)
    return _status(command.main, parser.parse_args(arguments[1:]), name)


def _status(command: Callable[[argparse.Namespace], int], arguments: argparse.Namespace, name: str) -> int:
    from engine.errors import TickpathError

    try:
        return command(arguments)
    except TickpathError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read our output left; the interpreter must not try to flush it again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _overview() -> str:
    rows = "\n".join(f"  {name:<8}{help}" for name, (_, help) in COMMANDS.items())
    return f"usage: python -m engine COMMAND ...\n\n{rows}\n\n`python -m engine COMMAND --help` tells the rest."
