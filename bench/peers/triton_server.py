"""The models behind Triton, the server in PyTriton's wheel, as its users write it: a function bound under a name.

Run as `python -m bench.peers.triton_server PORT`; answers the Open Inference Protocol over HTTP for the model
`tickpath`.
"""

import sys

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from bench.peers.tensors import INPUTS, answer, answer_size, models


@batch
def infer(inputs: np.ndarray) -> dict[str, np.ndarray]:
    return {"outputs": np.stack([answer(each) for each in inputs])}


def main(port: int) -> None:
    models()
    config = TritonConfig(http_address="127.0.0.1", http_port=port, grpc_port=port + 1, metrics_port=port + 2)
    with Triton(config=config) as triton:
        triton.bind(
            model_name="tickpath",
            infer_func=infer,
            inputs=[Tensor(name="inputs", dtype=np.float64, shape=(INPUTS,))],
            outputs=[Tensor(name="outputs", dtype=np.float32, shape=(answer_size(),))],
            config=ModelConfig(max_batch_size=32),
        )
        triton.serve()


if __name__ == "__main__":
    main(int(sys.argv[1]))
