"""What `check` says about one thing.

Owns the shape of a line; no state. What must stay true: a line reads the same for a person and,
field by field, for a program.
"""

from dataclasses import dataclass

OK, WARN, FAIL = "ok", "warn", "FAIL"


@dataclass(frozen=True)
class Finding:
    """`level` is ok, warn (it runs, but not as well as it could) or FAIL; `do` what would help."""

    level: str
    what: str
    detail: str
    do: str = ""

    def __str__(self) -> str:
        return f"{self.level:<4}  {self.what} — {self.detail}" + (f"; {self.do}" if self.do else "")
