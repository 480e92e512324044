"""An exported folder as a service: python serve.py FOLDER [PORT], then POST {"texts": ["a text", ...]} to /predict.

Needs onnxruntime, tokenizers, fastapi and uvicorn; no torch. For pairs: {"texts": [["a text", "its pair"], ...]}.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI, HTTPException, exceptions, responses
from pydantic import BaseModel, Field, constr
from tokenizers import Tokenizer

ASKED = 'the body is {"texts": [...]} with 1 to 64 texts, or pairs of texts, of whole Unicode characters'
Text = constr(min_length=0)  # a bound makes pydantic refuse half a surrogate pair


class Request(BaseModel):
    texts: list[Text] | list[tuple[Text, Text]] = Field(min_length=1, max_length=64)


def service(folder: str, threads: int = 1) -> FastAPI:
    about = json.loads((Path(folder) / "export.json").read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    tokenizer.enable_truncation(about["max_length"])
    tokenizer.enable_padding(pad_id=about["padding"]["id"], pad_token=about["padding"]["token"])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads  # of one request; requests run beside each other
    session = onnxruntime.InferenceSession(f"{folder}/{about['model']}", options, providers=["CPUExecutionProvider"])
    refuse = lambda *_: responses.JSONResponse({"detail": ASKED}, 422)  # FastAPI's own answer repeats the input
    app = FastAPI(title=Path(folder).name, exception_handlers={exceptions.RequestValidationError: refuse})

    @app.get("/health")
    def health() -> dict:
        return {"model": about["model"], "labels": about["labels"]}

    @app.post("/predict")
    def predict(request: Request) -> list[dict]:
        if about["pair"] == isinstance(request.texts[0], str):
            raise HTTPException(422, f"this model reads {'pairs of texts' if about['pair'] else 'single texts'}")
        read = tokenizer.encode_batch(list(request.texts))
        rows = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
        logits = session.run(None, {name: [getattr(one, rows[name]) for one in read] for name in about["inputs"]})[0]
        if not about["labels"]:
            return [{"score": float(z) * about["score"]["deviation"] + about["score"]["mean"]} for z in logits[:, 0]]
        shares = 1 / np.exp(logits - logits.max(-1, keepdims=True)).sum(-1)  # the largest of each softmax
        return [{"label": about["labels"][z.argmax()], "probability": float(p)} for z, p in zip(logits, shares)]

    return app


if __name__ == "__main__":
    _, folder, port, *_ = [*sys.argv, "8000", "8000"]
    if not (port.isdecimal() and int(port) < 65536 and (Path(folder) / "export.json").is_file()):
        sys.exit(print("usage: python serve.py FOLDER [PORT], FOLDER of trainflat export", file=sys.stderr) or 2)
    uvicorn.run(service(folder), port=int(port), log_level="warning")
