"""`sot batch --ray [ADDRESS]`: a pool of Ray's actors makes the answers, each with an engine or a client of its own.

A question is a task of its own, and an actor has as many tasks as it may have open calls. So each answer reaches this
process as soon as it ends, a task that Ray repeats after an actor's death costs one answer, and no actor waits for the
slowest of a batch. An actor ends as soon as this process does, even if that is killed.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from argparse import Namespace
from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skeleton_of_thought._cli.diagnostics import as_line
from skeleton_of_thought._cli.interrupts import exit_at_once
from skeleton_of_thought._cli.models import AnswerOptions, system_of
from skeleton_of_thought._cli.sudden_end import said_at_a_sudden_end
from skeleton_of_thought.errors import (
    InvalidInput,
    MissingExtra,
    ModelLoadError,
    SotError,
    error_text,
    is_missing,
    without_secrets,
)
from skeleton_of_thought.evaluation.rows import Row, from_json
from skeleton_of_thought.ray import AnswerQuestions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from skeleton_of_thought.evaluation.runner import Job
    from skeleton_of_thought.routers.base import AnyRouter

__all__ = ["AnswerWhileAsked", "Lifelines", "check_address", "check_ray", "connected", "rows_on_ray"]

_ANSWERS_IN = 5.0
"""Seconds that a cluster has to take a connection."""
_SPEAKS_IN = 20.0
"""Seconds that it has to answer as Ray's head does, the start of a process included."""
_MOST_TASKS = 64
"""Questions that an actor has at a time, whatever its calls."""
_CALLS = 8
"""Open calls of an actor, where nothing else is said."""
_ENDED = (
    "sot: error: Ray or another program has ended the command. With RAY_BACKEND_LOG_LEVEL=error in the environment Ray "
    "says why; the same command goes on."
)
_MOST_BLOCKS = 5000
"""Tasks of a job. Of more questions, a task has several, one after the other."""


def check_ray(address: str) -> None:
    """Checks what can be known before anything is written: that Ray is installed, and that an address answers.

    Raises:
        MissingExtra: Ray is not installed.
        InvalidInput: There is no cluster at this address.
    """
    if not _imported().is_initialized():
        check_address(_address(address))


@contextlib.contextmanager
def rows_on_ray(
    args: Namespace, jobs: Iterable[Job], options: AnswerOptions, router: AnyRouter | None, *, model: str
) -> Iterator[Iterator[Row]]:
    """Makes answers on Ray: an iterator of the rows, each as soon as its answer has ended, in no order.

    The end of the block ends all calls and all actors, and Ray too if it was started here. Ray's core may end the
    process at any time, with code 1 and no message, as when its head cannot be reached for a minute. Within the block
    another process says so. While Ray is closed nobody does, so all that has to be said or written comes before.

    Args:
        args: Of `sot batch`: `ray` (an address, or an empty text for `RAY_ADDRESS` or else a Ray of this machine),
            `actors` (None for as many as suit), `max_concurrency` (open calls over all actors; None for a default),
            and those of a model.
        jobs: The answers to make; each key once.
        options: The settings, the prompts and the model.
        router: The router of all answers.
        model: The model's name for the rows.

    Raises:
        MissingExtra: Ray is not installed.
        InvalidInput: There is no cluster at this address.
        SotError: Ray cannot start. By the iterator: the model cannot be loaded on an actor; actors die again and again.
    """
    left = {job.key: job for job in jobs}
    if not left:
        yield iter(())
        return
    # Ray's own end of the actors comes first: it reports an actor that ends by itself as one that has crashed.
    with said_at_a_sudden_end(_ENDED) as dismiss, contextlib.ExitStack() as last, connected(args.ray) as ray:
        lines = last.enter_context(Lifelines(ray.util.get_node_ip_address()))
        answers = _answers(ray, args, left, options, router, lines.address)
        with contextlib.closing(_told(answers.iter_rows())) as made:
            try:
                yield _rows(made, left, model)
            finally:
                dismiss()


def _answers(  # noqa: PLR0917 - those of its caller
    ray: Any,
    args: Namespace,
    left: Mapping[str, Job],
    options: AnswerOptions,
    router: AnyRouter | None,
    lifeline: tuple[str, int],
) -> Any:
    """The data set of the answers, which Ray makes while it is read."""
    pool = _pool(ray, getattr(args, "actors", None), local=options.model.source == "local", most=len(left))
    calls = max(1, (args.max_concurrency or _CALLS * pool["size"]) // pool["size"])
    tasks = min(calls, _MOST_TASKS)
    items = [{"id": key, "question": job.question.text, "system": job.question.system} for key, job in left.items()]
    return ray.data.from_items(items, override_num_blocks=min(len(items), _MOST_BLOCKS)).map_batches(
        AnswerWhileAsked,
        fn_constructor_kwargs={
            "lifeline": lifeline,
            "model": _model(args),
            "settings": options.settings,
            "prompts": options.prompts,
            "router": router,
            "concurrency": calls,
            "system": system_of(args),
            "system_column": "system",
            "key_column": "id",
            "temperature": args.temperature,
            "seed": args.seed,
            "max_tokens": args.max_tokens,
            "prefill": args.prefill,
        },
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(
            size=pool["size"],
            max_tasks_in_flight_per_actor=tasks,
            max_concurrent_calls_per_actor=tasks,
            enable_true_multi_threading=True,
        ),
        num_cpus=pool["cpus"],
        num_gpus=pool["gpus"],
    )


def _rows(made: Iterable[Mapping[str, Any]], left: dict[str, Job], model: str) -> Iterator[Row]:
    for item in made:
        if item["failure"]:
            raise ModelLoadError(f"On an actor of Ray: {item['failure']}")
        # None for a task that was repeated although its row had come.
        if (job := left.pop(item["id"], None)) is not None:
            question = job.question
            yield replace(
                from_json(json.loads(item["row"])),
                model=model,
                number=question.number,
                id=question.id,
                category=question.category,
                way=job.way.name,
                repeat=job.repeat,
                order=job.order,
                extra=question.extra,
            )


def _told(items: Iterable[Mapping[str, Any]]) -> Generator[Mapping[str, Any]]:
    """The items, with one clear error in place of Ray's."""
    try:
        yield from items
    except Exception as error:
        raise _clear(error) from error


def _clear(error: Exception) -> SotError:
    """What an error of a job means, in one line: Ray's have the traceback of another process in their text."""
    if isinstance(error, SotError):
        return error
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if found := next((line for line in lines if "No module named" in line), None):
        return SotError(
            f"On a node of Ray: {as_line(found, 200)}. Install this package on every node, with its extras."
        )
    last = without_secrets(lines[-1]) if lines else ""
    return SotError(f"The job on Ray failed: {type(error).__name__}: {as_line(last, 600)}")


def _model(args: Namespace) -> str | None:
    """The model's name for a process that may run in another folder."""
    name: str | None = args.model
    if (
        name is not None
        and not name.startswith(("openai:", "langchain:"))
        and (path := Path(name).expanduser()).exists()
    ):
        return str(path.resolve())
    return name


def _pool(ray: Any, actors: int | None, *, local: bool, most: int) -> dict[str, Any]:
    """How many actors there are, and what each needs.

    A local model gets a GPU for each actor, else the processors of a node. A client of a server needs next to nothing:
    two of them on each node keep the answers going if one dies.
    """
    has = ray.cluster_resources()
    nodes = max(1, sum(node["Alive"] for node in ray.nodes()))
    gpus, cpus = int(has.get("GPU", 0)), int(has.get("CPU", 1))
    if local and gpus:
        size, needs = actors or gpus, {"gpus": 1, "cpus": 1}
    elif local:
        size = actors or nodes
        # Ray lets the libraries of an actor have as many threads as it has processors.
        needs = {"gpus": 0, "cpus": max(1, cpus // max(size, nodes))}
    else:
        size, needs = actors or 2 * nodes, {"gpus": 0, "cpus": 0}
    return {"size": min(size, most), **needs}


# --- the end of the actors ----------------------------------------------------------------------------


class Lifelines:
    """Connections of this process to its actors, which end with the process at the latest, however that ends.

    Ray itself notices a killed process after seconds, in which actors would ask on.

    Args:
        host: Where the actors reach this process.

    Attributes:
        address: Host and port.
    """

    def __init__(self, host: str) -> None:
        self._listener = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.address: tuple[str, int] = (host, self._listener.getsockname()[1])
        self._held: list[socket.socket] = []
        threading.Thread(target=self._accept, name="sot-lifelines", daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                self._held.append(self._listener.accept()[0])

    def __enter__(self) -> Lifelines:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # `close` alone does not end `accept`
        self._listener.close()
        for each in self._held:
            each.close()


class AnswerWhileAsked(AnswerQuestions):
    """`AnswerQuestions` on an actor that ends with the process that asks.

    Args:
        lifeline: The address of that process, see `Lifelines`.
        settings: Those of `AnswerQuestions`.
    """

    def __init__(self, *, lifeline: tuple[str, int], **settings: Any) -> None:
        # Without a connection, as behind a firewall, Ray ends the actor somewhat later.
        with contextlib.suppress(OSError):
            line = socket.create_connection(lifeline, timeout=_ANSWERS_IN)
            line.settimeout(None)
            threading.Thread(target=_end_with, args=(line,), name="sot-lifeline", daemon=True).start()
        super().__init__(**settings)

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
        """The keys and rows alone. An error, which would lose its type on the way, is text: no model, no rows."""
        keys = batch["id"]
        try:
            return {"id": keys, "row": super().__call__(batch)["row"], "failure": [""] * len(keys)}
        except SotError as error:
            return {"id": keys, "row": [""] * len(keys), "failure": [str(error)] * len(keys)}


def _end_with(line: socket.socket) -> None:
    with contextlib.suppress(OSError):
        line.recv(1)
    os._exit(1)  # the system closes all connections, and so the servers end the calls


# --- the connection -----------------------------------------------------------------------------------


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Ray, connected; the connection ends with the block, unless this process had one before.

    Args:
        address: HOST:PORT of a cluster, `auto` for the one that runs on this machine; `local`, an empty text or None
            for a new one on this machine, unless `RAY_ADDRESS` names another.

    Raises:
        MissingExtra: Ray is not installed.
        InvalidInput: There is no cluster at this address.
        SotError: Ray cannot start.
    """
    ray = _imported()
    if ray.is_initialized():
        yield ray
        return
    address = _address(address)
    check_address(address)
    before = signal.getsignal(signal.SIGTERM)
    with exit_at_once(), _quiet_libraries():
        _init(ray, address)
    try:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # Ray has one of its own
        yield ray
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Keeps off the terminal what Ray's own libraries print while they start. Their errors come as exceptions."""
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def _imported() -> Any:
    # Ray reads them when it is imported. The first one: it reports its use to its makers otherwise.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_DATA_LOG_LEVEL", "CRITICAL")  # its errors are raised as well
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        with exit_at_once():
            import ray
            import ray.data
    except ImportError as error:
        if not is_missing(error, "ray", "pyarrow", "pandas"):
            raise
        raise MissingExtra("sot batch --ray needs Ray Data", "ray") from error
    logging.getLogger("ray").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = False
    return ray


def _init(ray: Any, address: str) -> None:
    options: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, **options)
    except (ConnectionError, ValueError) as error:
        raise InvalidInput(f"--ray {address}: {as_line(error_text(error), 600)}") from error
    except Exception as error:
        raise SotError(f"Ray does not start: {as_line(error_text(error), 600)}") from error


def _address(given: str | None) -> str:
    return given or os.environ.get("RAY_ADDRESS") or "local"


def check_address(address: str) -> None:
    """Refuses an address where no cluster answers; Ray itself would wait for it without an end.

    Raises:
        InvalidInput: It is no address, or nothing answers there as Ray's head does.
    """
    if address in ("auto", "local"):
        return
    if address.startswith("ray://"):
        raise InvalidInput(
            f"--ray {address}: that is the port for clients outside of a cluster. Run the command on a node of the "
            "cluster, as `ray job submit` does, with --ray auto."
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise InvalidInput(f"--ray {address!r} is no address: write HOST:PORT, auto or local.")
    advice = "Is it the address that `ray start --head` printed?"
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWERS_IN).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise InvalidInput(f"--ray {address}: no cluster answers there ({error}). {advice}") from error
    probe = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        # A process of its own, since the call cannot be ended. Its exit code says more than is asked here.
        subprocess.run(
            probe,
            check=False,
            timeout=_SPEAKS_IN,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise InvalidInput(f"--ray {address}: what answers there is no cluster of Ray. {advice}") from error
