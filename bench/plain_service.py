"""The same models in a plain asyncio service, written the way most teams would write it.

Owns its windows, sessions and connection; runs as a process of its own, `python -m bench.plain_service`.
Reads the contract's feature vectors from NATS, writes the contract's predictions: nats-py on uvloop,
google.protobuf, PyJWT, NumPy features, ONNX Runtime sessions, XGBoost's own `predict` with
`pred_contribs`. One process, one thread of its own; libraries with one thread each, as suits inputs
this small. What must stay true: nothing here is slow on purpose, and what the engine does beyond
answering (numbering, order, repeats, restarts, fair shares, deadlines) is not done here.
"""

import argparse
import asyncio
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import jwt
import nats
import numpy as np
import onnxruntime
import uvloop
import xgboost
from nats.aio.client import Client
from nats.aio.msg import Msg

from bench.plain_answer import Outputs, Version, predict
from bench.plain_features import Inputs, Window, image_of
from engine.contract.ml.envelope_pb2 import MLProcessingEnvelope
from engine.contract.ml.feature_vectors_pb2 import FeatureVectorBatch
from engine.contract.ml.ml_predictions_pb2 import MLPredictionBatch
from engine.contract.names import FEATURES_SUBJECT, MESSAGE_ID_HEADER, PREDICTIONS_SUBJECT

NAME = "plain-0"
REMEMBERED_S = 60.0
log = logging.getLogger(NAME)


class Tokens:
    """Who sent a message. With `remember`, a token that was good is good for a minute, as in the engine."""

    def __init__(self, jwks: Path, remember: bool) -> None:
        self.keys = {key.key_id: key.key for key in jwt.PyJWKSet.from_dict(json.loads(jwks.read_text())).keys}
        self.remember = remember
        self._known: dict[str, tuple[float, dict[str, Any]]] = {}

    def claims(self, token: str) -> dict[str, Any]:
        until_s, claims = self._known.get(token, (0.0, {}))
        now_s = time.time()
        if now_s < until_s:
            return claims
        key = self.keys[jwt.get_unverified_header(token)["kid"]]
        claims = jwt.decode(token, key, algorithms=["EdDSA"], audience="ml", options={"require": ["exp", "sub"]})
        if self.remember:
            self._known[token] = (min(now_s + REMEMBERED_S, float(claims["exp"])), claims)
        return claims


class Models:
    """The bundled ones, a session or a booster each."""

    def __init__(self, store: Path) -> None:
        self.price = Version.read(store / "advanced_lstm" / "2.1")
        self.pattern = Version.read(store / "cnn_patterns" / "1.8")
        self.direction = Version.read(store / "xgboost_direction" / "3.2")
        self.ensemble = Version.read(store / "ensemble_meta" / "1.5")

    def open(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._lstm, self._cnn, self._stacker = (
            onnxruntime.InferenceSession(str(each.path), options, providers=["CPUExecutionProvider"])
            for each in (self.price, self.pattern, self.ensemble)
        )
        self._trees = xgboost.Booster({"nthread": 1})
        self._trees.load_model(str(self.direction.path))
        self._trees.set_param({"nthread": 1})

    def decide(self, members: list[float]) -> list[float]:
        """The stacker's chances of sell, hold and buy."""
        (chances,) = self._stacker.run(["direction"], {"members": np.array([members], np.float32)})
        return chances[0].tolist()

    def run(self, inputs: list[Inputs]) -> list[Outputs]:
        """The networks take one row at a time, as they were exported; the trees take the whole message."""
        matrix = xgboost.DMatrix(
            np.array([each.columns for each in inputs]), feature_names=self._trees.feature_names, nthread=1
        )
        margins = self._trees.predict(matrix, output_margin=True)
        shares = self._trees.predict(matrix, pred_contribs=True)
        outputs = []
        for each, margin, share in zip(inputs, margins, shares, strict=True):
            move, rise = self._lstm.run(["move", "rise"], {"rows": each.rows})
            (pattern,) = self._cnn.run(["pattern"], {"image": image_of(each.path)})
            outputs.append(Outputs(move[0], rise[0], pattern[0], margin, share))
        return outputs


class Service:
    def __init__(self, models: Models, tokens: Tokens) -> None:
        self.models = models
        self.tokens = tokens
        self.windows: dict[tuple[str, str, str], Window] = {}
        self.client = Client()

    async def open(self, url: str) -> None:
        self.models.open()
        self.client = await nats.connect(url, name=NAME)
        await self.client.subscribe(f"{FEATURES_SUBJECT}.>", cb=self.on_message)
        await self.client.flush()

    async def on_message(self, message: Msg) -> None:
        began = time.perf_counter()
        try:
            envelope = MLProcessingEnvelope.FromString(message.data)
            claims = self.tokens.claims(envelope.auth_token.jwt)
            if (claims["company_id"], claims["sub"]) != (envelope.company_id, envelope.user_id):
                raise ValueError("company or user is not the token's")
            answer = self.answer(envelope, began)
        except Exception:
            log.exception("a message was dropped")
            return
        name = f"{NAME}/{envelope.company_id}/{envelope.service_source}/{envelope.epoch}/{envelope.sequence}"
        subject = f"{PREDICTIONS_SUBJECT}.{envelope.company_id}.{envelope.service_source}"
        await self.client.publish(subject, answer.SerializeToString(), headers={MESSAGE_ID_HEADER: name})

    def answer(self, envelope: MLProcessingEnvelope, began: float) -> MLProcessingEnvelope:
        taken = time.perf_counter()
        batch = FeatureVectorBatch.FromString(envelope.payload)
        inputs = []
        for vector in batch.feature_vectors:
            key = (envelope.company_id, envelope.service_source, vector.symbol)
            if key not in self.windows:
                self.windows[key] = Window()
            inputs.append(self.windows[key].see(vector))
        outputs = self.models.run(inputs)
        answer = MLPredictionBatch(
            user_id=envelope.user_id,
            company_id=envelope.company_id,
            correlation_id=envelope.correlation_id,
            predictions=[
                predict(vector, given, said, self.models)
                for vector, given, said in zip(batch.feature_vectors, inputs, outputs, strict=True)
            ],
            source_id=envelope.service_source,
            source_epoch=envelope.epoch,
            source_sequence=envelope.sequence,
        )
        answer.performance_metrics.model_count = 4
        answer.performance_metrics.inference_time_ms = (time.perf_counter() - taken) * 1e3
        answer.performance_metrics.engine_time_ms = (time.perf_counter() - began) * 1e3
        out = MLProcessingEnvelope(
            message_type="ml_inference",
            user_id=envelope.user_id,
            company_id=envelope.company_id,
            payload=answer.SerializeToString(),
            timestamp=time.time_ns(),
            service_source=NAME,
            correlation_id=envelope.correlation_id,
            model_info=answer.predictions[0].model_info,
            epoch=envelope.epoch,
            sequence=envelope.sequence,
        )
        out.trace_context.correlation_id = envelope.correlation_id
        return out


async def serve(arguments: argparse.Namespace) -> None:
    service = Service(Models(arguments.models), Tokens(arguments.jwks, arguments.remember))
    await service.open(arguments.url)
    print("ready", flush=True)
    await asyncio.Event().wait()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.plain_service")
    parser.add_argument("--url", required=True)
    parser.add_argument("--jwks", type=Path, required=True)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--remember", action="store_true", help="a good token is remembered for a minute")
    logging.basicConfig(level=logging.INFO)
    uvloop.run(serve(parser.parse_args()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
