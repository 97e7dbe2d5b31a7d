"""Features by the machines of a Ray cluster: `--on ray`, or `--on ray://host:port`.

    driver   looks up what the store lacks, hands out ranges of pictures, counts, merges chunks   this module
    worker   an actor: one engine, which writes the rows of its range into the store              worker.py

No row passes through the driver. Ray (https://docs.ray.io) finds the machines, starts the actors and says when one has
died. Its own retries are off, for a picture that kills its worker would be tried for ever: here a range whose worker
died is cut into parts, down to the one picture, which is left out the second time.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import logging
import os
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from datasets.base import InputError, MachineFault
from datasets.progress import Progress
from finetune.config import Config
from finetune.device import let_ctrl_c_through
from finetune.features.compute import CHUNK_ROWS
from finetune.features.remote.ranges import TRIES, Range, parts_of, ranges
from finetune.features.remote.worker import Answer, Job, Worker
from finetune.features.views import Views
from finetune.storage.store import FeatureStore
from pretrained.weights import Backbone

CHECKOUT = Path(__file__).parents[3]
SCHEME = "ray://"
CORES = 4  # of a worker, where --threads says nothing: each has MindSpore and the engine in memory, 0.6 GB
MOST_DEATHS = 64  # of workers one after another, without anything computed in between
WAIT_SECONDS = 30.0

log = logging.getLogger("finetune")


class RayWorkers:
    """Stands where an engine stands, but takes files instead of pictures.

    Raises:
        InputError: Ray is not installed, or `config.machines` is no address.
    """

    def __init__(
        self,
        backbone: Backbone,
        platform: str,
        cores: int,
        config: Config,
        cut: int | None,
        numeric_class: str,
        make_engine: Callable,
    ):
        """`cores`: of each worker, 0: at most CORES; `make_engine`: what each calls."""
        check_address(config.machines)
        self.backbone, self.platform, self.cores, self.config, self.cut = backbone, platform, cores, config, cut
        self.numeric_class, self.make_engine = numeric_class, make_engine

    def fill(
        self,
        wanted: Sequence[tuple[int, int]],
        paths: Sequence[Path],
        keys: list,
        views: Views,
        store: FeatureStore,
        damaged: dict,
    ) -> int:
        """As `finetune.features.compute.compute`.

        Raises:
            MachineFault: no cluster, no worker that lives, or one does not see the store.
        """
        mark = store.folder.absolute() / f"{uuid.uuid4().hex}.tmp"
        mark.touch()
        rows_written, said = 0, set()
        what = "pictures" if views.count == 1 else "views"
        try:
            with connected(self.config.machines) as ray, Progress("features", len(wanted), what) as progress:
                cores, count = workers_of(ray.nodes(), self.cores, self.platform, self.config.machines)
                pieces = ranges(wanted, paths, keys, count)
                count = min(count, len(pieces))
                log.info("ray: %d worker(s) of %d core(s), %d ranges of pictures", count, cores, len(pieces))
                start = self._starter(ray, self._job(views, store, mark, cores))
                for piece, answer in answers(ray, start, pieces, count):
                    mark.touch()  # not to be taken for something that a killed run left
                    for row, key in answer.keys.items():
                        keys[row] = key
                    damaged |= answer.damaged
                    rows_written += answer.computed
                    tell(answer.said, said)
                    store.chunks_came(-(-answer.computed // CHUNK_ROWS))
                    progress.update(len(piece.wanted))
        finally:
            mark.unlink(missing_ok=True)
        return rows_written

    def _job(self, views: Views, store: FeatureStore, mark: Path, cores: int) -> Job:
        store = copy.copy(store)
        store.folder = mark.parent
        backbone, config = self.backbone, replace(self.config, machines=None)
        facts = backbone.record, backbone.digest, backbone.folded, views, store, mark
        return Job(self.make_engine, config, self.platform, cores, self.cut, *facts)

    def _starter(self, ray, job: Job) -> Callable:
        """A function that starts a worker and returns (it, what tells when it is ready)."""
        devices = {"GPU": {"num_gpus": 1}, "Ascend": {"resources": {"NPU": 1}}}.get(self.platform, {})
        actor = ray.remote(Worker).options(num_cpus=job.cores, max_restarts=0, max_task_retries=0, **devices)
        network = self.backbone.network
        arrays = ray.put({parameter.name: parameter.asnumpy() for parameter in network.get_parameters()})

        def start():
            worker = actor.remote()
            return worker, worker.begin.remote(job, arrays)

        return start


def check_address(machines: str) -> None:
    if machines != "ray" and not (machines.startswith(SCHEME) and len(machines) > len(SCHEME)):
        raise InputError(
            f"--on {machines}: unknown. Give ray (this machine's cluster, or that of the variable RAY_ADDRESS), or "
            f"{SCHEME}host:port of a cluster."
        )
    if importlib.util.find_spec("ray") is None:
        raise InputError(
            f"--on {machines}: Ray is not installed. Install it here and on all machines: "
            "pip install -r requirements-ray.txt; or leave --on out, and this machine computes."
        )


@contextlib.contextmanager
def connected(machines: str) -> Iterator:
    """The module ray, connected for as long as the block runs, or longer where it was before."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster that is started here tells nobody
    import ray

    if ray.is_initialized():
        yield ray
        return
    variables = {"PYTHONPATH": os.pathsep.join([str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])])}
    try:
        ray.init(
            None if machines == "ray" else machines,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": variables},
        )
    except (ConnectionError, RuntimeError, ValueError, TimeoutError, ImportError) as error:
        where = os.environ.get("RAY_ADDRESS", "this machine") if machines == "ray" else machines
        raise MachineFault(
            f"--on {machines}: no Ray cluster can be used at {where} ({last_line(error)}). See `ray status` there; one "
            "guarded by a token wants RAY_AUTH_MODE=token. Or leave --on out, and this machine computes."
        ) from error
    let_ctrl_c_through()  # Ray has made SIGTERM an exit of its own
    try:
        yield ray
    except ray.exceptions.RayError as error:
        raise MachineFault(
            f"--on {machines}: the Ray cluster is gone: {last_line(error)} Repeat the command; what is computed is "
            "kept."
        ) from error
    finally:
        ray.shutdown()


def workers_of(nodes: list[dict], cores: int, platform: str, machines: str) -> tuple[int, int]:
    """(cores of a worker, how many workers there is room for) on machines as `ray.nodes()` tells of them.

    Raises:
        MachineFault: for none.
    """
    found = [node["Resources"] for node in nodes if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    cores = cores or min([CORES, *(int(one["CPU"]) for one in found)])
    device = {"GPU": "GPU", "Ascend": "NPU"}.get(platform, "CPU")
    count = sum(int(min(one["CPU"] // cores, one.get(device, 0))) for one in found)
    if not count:
        there = ", ".join(f"{one['CPU']:g} cores" for one in found) or "no machine with a core"
        wanted = f"{cores} core(s)" + ("" if device == "CPU" else f" and one {device}")
        raise MachineFault(
            f"--on {machines}: no room for a worker of {wanted}; there is {there}. Give fewer --threads, or add "
            "machines."
        )
    return cores, count


def answers(ray, start: Callable, pieces: Sequence[Range], count: int) -> Iterator[tuple[Range, Answer]]:
    """What came of the ranges, and of the parts of those whose worker died. A worker gets one when it has nothing to
    do, and so none while Ray finds no place for it.

    Raises:
        MachineFault: nothing but deaths.
    """
    died = (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError, ray.exceptions.WorkerCrashedError)
    todo, idle, tries, deaths = deque(pieces), [], Counter(), 0
    under_way = {ready: (worker, None) for worker, ready in (start() for _ in range(count))}
    try:
        while todo or any(piece for _, piece in under_way.values()):
            while idle and todo:
                worker, piece = idle.pop(), todo.popleft()
                under_way[worker.compute.remote(piece.absolute())] = worker, piece
            done, _ = ray.wait(list(under_way), timeout=WAIT_SECONDS)
            if not done:
                if not any(piece for _, piece in under_way.values()):
                    log.info("ray: waiting for a worker; is there room in the cluster? `ray status` tells")
                continue
            worker, piece = under_way.pop(done[0])
            try:
                answer = ray.get(done[0])
            except died as error:
                end(ray, worker)  # or Ray has only lost sight of it
                deaths += 1
                if deaths >= max(MOST_DEATHS, 2 * count):
                    raise MachineFault(
                        f"ray: {deaths} workers died one after another; of the last Ray says: {last_line(error)} Is "
                        "there memory, and is this checkout on all machines? Mend that and repeat the command; what is "
                        "computed is kept."
                    ) from error
                worker, ready = start()
                under_way[ready] = worker, None
                again = parts_of(piece, tries) if piece else []
                todo.extendleft(again)
                if piece and not again:
                    (key,) = piece.keys.values()
                    yield piece, Answer(0, {}, {key: f"killed the process that computed it, {TRIES} times"})
                continue
            except ray.exceptions.RayTaskError as error:
                end(ray, worker)
                raise error.cause from error
            idle.append(worker)
            if piece:
                deaths = 0
                yield piece, answer
    finally:
        for worker in [*idle, *(worker for worker, _ in under_way.values())]:
            end(ray, worker)


def end(ray, worker) -> None:
    with contextlib.suppress(ray.exceptions.RayError):
        ray.kill(worker)


def tell(lines: Sequence[tuple[int, str]], said: set[str]) -> None:
    """What a worker's log says: of the first everything, of the others the warnings that are new."""
    first = not said
    for level, line in lines:
        if line not in said and (first or level >= logging.WARNING):
            log.log(level, "ray: %s", line)
    said |= {line for _, line in lines}


def last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()[:300]
