"""The models behind mosec, as its users write it: a worker with its own (de)serialisation, one process of it.

Run as `python -m bench.peers.mosec_server --address 127.0.0.1 --port N`; answers POST /inference.
"""

import numpy as np
from mosec import Server, Worker

from bench.peers.tensors import answer, models


class Predict(Worker):
    def __init__(self) -> None:
        super().__init__()
        models()

    def deserialize(self, data: bytes) -> np.ndarray:
        return np.frombuffer(data, np.float64)

    def forward(self, data: np.ndarray) -> np.ndarray:
        return answer(data)

    def serialize(self, data: np.ndarray) -> bytes:
        return data.tobytes()


if __name__ == "__main__":
    server = Server()
    server.append_worker(Predict)
    server.run()
