"""Error texts are asserted whole."""

import re


def whole(text: str) -> str:
    """A pattern that matches this text and no other."""
    return f"^{re.escape(text)}$"
