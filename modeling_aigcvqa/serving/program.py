"""Start a service: one process, or several behind one port."""

import os
import tempfile
from dataclasses import replace

import uvicorn

from ..clip_scorer import ScorerIdentity
from ..requests_aigcvqa import RequestLimits
from .devices import FOLDER
from .metrics import FOLDER as METRICS_FOLDER
from .settings import TOKEN_VARIABLE, ServiceSettings

HEALTH_CHECK_S = 60  # a process that does not answer its parent for so long is replaced


def serve(settings: ServiceSettings, host: str, port: int, token: str | None = None) -> None:
    """Serve until SIGINT or SIGTERM; requests that are being answered are finished first.

    Raises:
        ValueError: for a model that cannot be loaded, or a limit in the environment that is no number.
    """
    seconds = RequestLimits.from_environment().request_seconds
    ScorerIdentity.of(settings.scorer)  # fetches the model once, and refuses it here and not in each process
    if settings.workers > 1 and settings.scorer.threads is None:
        threads = max(1, (os.cpu_count() or 1) // settings.workers)
        settings = replace(settings, scorer=replace(settings.scorer, threads=threads))
    with tempfile.TemporaryDirectory(prefix="aigcvqa-service-") as folder:
        settings.to_environment()
        os.environ[FOLDER] = folder
        if token is not None:
            os.environ[TOKEN_VARIABLE] = token
        if settings.workers > 1:
            os.environ[METRICS_FOLDER] = folder
        uvicorn.run(
            f"{__package__}.app:app_from_environment",
            factory=True,
            host=host,
            port=port,
            workers=settings.workers,
            access_log=False,
            timeout_graceful_shutdown=seconds,
            timeout_worker_healthcheck=HEALTH_CHECK_S,
        )
