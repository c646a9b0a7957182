"""The kinds of models, and what they stand on."""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime reads it at its import: nothing is told to anybody
