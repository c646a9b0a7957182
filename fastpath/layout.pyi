from typing import Any

def __getattr__(name: str) -> Any: ...  # numbers and dtypes, all derived from layout.pxd
