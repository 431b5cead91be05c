"""The HTTP service: its paths, and how requests become clips to score."""

import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from torch import Tensor

from .. import __version__
from ..clip_scorer import ClipScorer
from ..frames_aigcvqa import ReadLimits
from ..limits_aigcvqa import ClipLimits
from ..requests_aigcvqa import RequestLimits
from ..reward.frames import Range
from ..reward.reward import inputs_of_clip
from .api_page import DESCRIPTION, SCORE, SCORE_TENSORS
from .clip_queue import ClipQueue, Job, QueueFull
from .devices import device_of_this_process
from .gate import Gate, of_full_queue, refused
from .metrics import Metrics
from .settings import TOKEN_VARIABLE, ServiceSettings
from .tensors import check_tensors, unpacked


def app_from_environment() -> FastAPI:
    """The service of a process that `serve` has started."""
    return create_app(ServiceSettings.from_environment(), os.environ.get(TOKEN_VARIABLE) or None)


def create_app(settings: ServiceSettings, token: str | None = None) -> FastAPI:
    """The service.

    Args:
        token: what clients send as `Authorization: Bearer TOKEN`; None for an open service.

    Raises:
        ValueError: for a limit in the environment that is no number.
    """
    limits, metrics = RequestLimits.from_environment(), Metrics()

    def load() -> ClipScorer:
        return ClipScorer(replace(settings.scorer, device=device_of_this_process(settings)))

    queue = ClipQueue(load, settings.max_wait, settings.max_queue, metrics)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await queue.start()
        yield
        await queue.stop()

    app = FastAPI(title="AIGC-VQA", version=__version__, description=DESCRIPTION, lifespan=lifespan)
    app.state.queue = queue
    app.add_middleware(Gate, settings=settings, token=token, metrics=metrics)
    app.add_exception_handler(ValueError, lambda request, error: refused(400, str(error)))
    app.add_exception_handler(QueueFull, lambda request, error: of_full_queue(error))
    app.add_exception_handler(
        HTTPException, lambda request, error: refused(error.status_code, str(error.detail), error.headers)
    )

    @app.post("/score", openapi_extra=SCORE)
    async def score(request: Request) -> Response:
        """Scores of video files, sent as a form or as base64 text in JSON."""
        deadline = time.monotonic() + limits.request_seconds
        data = await _data(request, limits)
        inputs, is_single = limits.items(data)
        scale = limits.wants_scale(data)
        queue.scorer.pipeline.model.config.check_scale(scale)
        items = await run_in_threadpool(lambda: [limits.checked_item(item) for item in inputs])
        clip_limits, spent = ClipLimits(**limits.of_clips(deadline)), ReadLimits()
        results = await queue.results(
            [Job(partial(_inputs_of_file, queue.scorer, item, clip_limits, spent), deadline) for item in items]
        )
        results = [_explained(queue.scorer, result, scale) for result in results]
        if not is_single:
            return JSONResponse(results)
        if "error" in results[0]:
            is_busy = results[0]["error"] == RequestLimits.busy
            return refused(503 if is_busy else 400, results[0]["error"], {"Retry-After": "1"} if is_busy else None)
        return JSONResponse(results[0])

    @app.post("/score_tensors", openapi_extra=SCORE_TENSORS)
    async def score_tensors(request: Request) -> Response:
        """Scores of frames, sent as safetensors."""
        deadline = time.monotonic() + limits.request_seconds
        clips, prompts, value_range, scale = await run_in_threadpool(unpacked, await request.body())
        queue.scorer.pipeline.model.config.check_scale(scale)
        check_tensors(clips, limits)
        jobs = []
        for index, (clip, prompt) in enumerate(zip(clips, prompts)):
            prepare = partial(_inputs_of_tensor, queue.scorer, clip, prompt, f"frames[{index}]", value_range, limits)
            jobs.append(Job(prepare, deadline))
        results = await queue.results(jobs)
        return JSONResponse({"results": [_explained(queue.scorer, result, scale) for result in results]})

    @app.get("/healthz")
    async def healthz() -> dict[str, Any]:
        """What this process serves, and how many clips wait."""
        identity = queue.scorer.identity
        return {
            "status": "ok",
            "model": settings.scorer.model,
            "model_revision": identity.model_revision,
            "options": identity.options,
            "device": str(queue.scorer.pipeline.device),
            "waiting_clips": queue.waiting,
            "process": os.getpid(),
        }

    @app.get("/metrics")
    async def show_metrics() -> Response:
        """Counters for Prometheus, of all processes of the service."""
        return Response(metrics.page(), media_type=CONTENT_TYPE_LATEST)

    return app


async def _data(request: Request, limits: RequestLimits) -> Any:
    """A request as JSON, `{"inputs": ...}`, also of a form with files."""
    kind = request.headers.get("content-type", "")
    if kind.startswith("multipart/form-data"):
        form = await request.form(max_files=limits.max_items + 1, max_fields=limits.max_items + 2)
        videos, prompts = form.getlist("video"), form.getlist("prompt")
        if not videos or not all(isinstance(video, UploadFile) for video in videos):
            raise ValueError("the form has no file 'video'; send one per clip, and as many texts 'prompt'.")
        if prompts and len(prompts) != len(videos):
            raise ValueError(f"the form has {len(prompts)} texts 'prompt' for {len(videos)} files 'video'.")
        items = [
            {"video": await video.read(), "prompt": prompt}
            for video, prompt in zip(videos, prompts or [None] * len(videos))
        ]
        parameters = {"scale": _truth(form["scale"])} if "scale" in form else {}
        return {"inputs": items if len(items) > 1 else items[0], "parameters": parameters}
    try:
        return await run_in_threadpool(json.loads, await request.body())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the body is not JSON ({error}); send JSON, or a form with the file 'video'.") from error


def _inputs_of_file(scorer: ClipScorer, item: dict, limits: ClipLimits, spent: ReadLimits) -> dict[str, Any]:
    if "error" in item:
        return item
    reader = scorer.read
    try:
        return reader.prepare(item, "return", limits=limits, spent=spent, processor_options=reader.options)
    except Exception as error:  # a defect of a decoder must not cost the other clips
        return {"error": f"the video cannot be read ({type(error).__name__}: {error})."}


def _inputs_of_tensor(
    scorer: ClipScorer, clip: Tensor, prompt: str | None, name: str, value_range: Range, limits: RequestLimits
) -> dict[str, Any]:
    try:
        limits.check_prompt(prompt)
        return inputs_of_clip(scorer.read.prepare, clip, prompt, name, value_range)
    except ValueError as error:
        message = str(error)
        return {"error": message if message.startswith(name) else f"{name}: {message}"}
    except Exception as error:  # a defect of this code must not cost the other clips
        return {"error": f"{name} cannot be read ({type(error).__name__}: {error})."}


def _truth(text: Any) -> Any:
    """true and false of a form; other values as they are, to be refused."""
    return {"true": True, "false": False}.get(text, text)


def _explained(scorer: ClipScorer, result: dict[str, Any], scale: bool) -> dict[str, Any]:
    """A result with its percentiles, if they are wanted, and with the note on the weights."""
    config, note = scorer.pipeline.model.config, scorer.identity.weights_note
    if "error" in result:
        return result
    if scale:
        result = {**result, **config.on_scale(result), "about_scale": config.about_scale}
    return {**result, "note": note} if note else result
