"""The kinds of models, and what they stand on."""

import os

os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # numbers as NVIDIA's management library gives them
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime reads it at its import: nothing is told to anybody
