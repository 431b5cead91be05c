"""`aigcvqa serve`: scores over HTTP."""

import argparse
import os

from rich.console import Console

from .shared import add_model_arguments, named_branches

HELP = "score over HTTP: files and tensors, for trainers and web services"
DESCRIPTION = """Serves POST /score (files), POST /score_tensors (frames as safetensors), /healthz, /metrics and /docs.
Needs the extra `serve`. The limits of requests are environment variables, AIGCVQA_MAX_BYTES and others."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.add_argument("--branches", help="comma-separated branches to build (default: all)")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for all (default: %(default)s)"
    )
    parser.add_argument("--port", type=int, default=8000, help="(default: %(default)s)")
    parser.add_argument(
        "--token", help="that clients must send (default: the environment variable AIGCVQA_TOKEN, else none)"
    )
    parser.add_argument(
        "--workers", type=int, default=1, help="processes; several GPUs are shared out among them (default: 1)"
    )
    parser.add_argument("--threads", type=int, help="CPU threads of a process (default: the cores, shared out)")
    parser.add_argument("--max_batch", type=int, default=8, help="most clips per pass on a GPU (default: %(default)s)")
    parser.add_argument(
        "--max_wait_ms", type=float, default=5.0, help="that a clip waits for others on a GPU (default: %(default)s)"
    )
    parser.add_argument(
        "--max_queue", type=int, default=64, help="clips per process that may wait (default: %(default)s)"
    )
    parser.add_argument("--max_body_mib", type=int, default=512, help="largest request in MiB (default: %(default)s)")


def run(arguments: argparse.Namespace, errors: Console) -> int:
    try:
        from ..serving.program import serve
    except ImportError as error:
        raise ValueError(f"aigcvqa serve needs more packages ({error.name}): pip install 'aigcvqa[serve]'") from error
    from ..clip_scorer import ScorerSettings
    from ..serving.settings import TOKEN_VARIABLE, ServiceSettings

    scorer = ScorerSettings(
        model=arguments.model,
        branches=named_branches(arguments.branches),
        device=arguments.device,
        dtype=arguments.dtype,
        batch_size=arguments.max_batch,
        threads=arguments.threads,
    )
    settings = ServiceSettings(
        scorer,
        workers=arguments.workers,
        max_wait=arguments.max_wait_ms / 1000,
        max_queue=arguments.max_queue,
        max_body=arguments.max_body_mib * 2**20,
    )
    token = arguments.token or os.environ.get(TOKEN_VARIABLE) or None
    if token is None and arguments.host not in LOOPBACK:
        errors.print(f"--host {arguments.host} without --token: everybody who reaches it can use it.", style="yellow")
    serve(settings, arguments.host, arguments.port, token)
    return 0
