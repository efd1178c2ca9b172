"""The Celery application of a worker process: `celery -A workers.app worker -Q …`.

The role comes with the command line: queues and pool. Trainings and predictions run in spawned pool processes of one
slot; the control worker has a pool of threads and carries the clock of the sweep.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from celery import Celery, bootsteps, signals
from celery.apps import worker as apps_worker
from celery.worker import state as worker_state
from celery.worker.control import Panel

from logs.lines import ROLE, formatter
from logs.redaction import redacted_value
from logs.setting_up import set_up
from ml import isolation
from settings import Settings
from storage.errors import StorageError
from storage.live import Heartbeat
from storage.live.heartbeats import INTERVAL_S
from workers.memory import family_bytes
from workers.parts import Parts
from workers.queue import CONTROL_QUEUE, SWEEP

if TYPE_CHECKING:
    from workers.webhooks.courier import Courier

ONCE = "MODELYARD_WORKER_ONCE"
"""Set for a worker that ends after one task: for how many seconds it waits for one."""

STOP_MARKER = "MODELYARD_STOP_MARKER"
"""Names the file that tells a worker's pool process that the worker shuts down."""

_DEAF_S = 20.0
# A read of the queues that is under way when they are closed lasts a second at most; what it brings is put back.
_ONCE_LOOK_S, _ONCE_SETTLES_S = 0.2, 3.0
_log = logging.getLogger(__name__)

if os.environ.get(ROLE):
    # This is a process of ours: what Celery says before it asks how to log is in our form too.
    set_up()
settings = Settings.from_env(os.environ)
app = Celery("modelyard", broker=settings.broker_url, include=["workers.tasks"])
app.conf.update(
    accept_content=["json"],
    task_serializer="json",
    # States and results live in the records.
    task_ignore_result=True,
    task_track_started=False,
    # The message is a hint: it is acknowledged before the work, and lost ones are sent again by the sweep. Late
    # acknowledgement would deliver long trainings a second time after an hour.
    task_acks_late=False,
    task_default_queue=CONTROL_QUEUE,
    # Forked processes cannot use CUDA, and inherit the locks of threads that they do not have.
    worker_pool_start_method="spawn",
    worker_concurrency=1,
    worker_disable_prefetch=True,
    worker_soft_shutdown_timeout=settings.shutdown_s + settings.kill_grace_s + 10,
    worker_proc_alive_timeout=60,
    worker_send_task_events=True,
    worker_redirect_stdouts=False,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_pool_acquire_timeout=5,
    broker_transport_options={
        # Above the second that a blocking read of a queue lasts; without it a publish on a dead connection never ends.
        "socket_timeout": 10,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "health_check_interval": 25,
    },
)


def _is_no_sweep(record: logging.LogRecord) -> bool:
    return SWEEP not in record.getMessage()


# Two lines for each sweep, every two seconds, would bury all others; what a sweep did is logged by itself.
for _name in ("celery.worker.strategy", "celery.app.trace"):
    logging.getLogger(_name).addFilter(_is_no_sweep)


def _told_without_secrets(command: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(command)
    def told(*args: Any, **named: Any) -> Any:
        return redacted_value(command(*args, **named))

    return told


# What a worker tells of itself is shown by Flower. Celery hides the password of most brokers' addresses, but not that
# of one behind a socket.
for _name in ("conf", "dump_conf", "stats", "report"):
    Panel.data[_name] = _told_without_secrets(Panel.data[_name])


class SweepClock(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery publishes no types
    """Sends the periodic message that starts a sweep; part of every worker that serves the control queue.

    The message expires after a period, so several clocks, or a queue that waits, add nothing.
    """

    requires: ClassVar = {"celery.worker.components:Timer"}

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        self._parts: Parts | None = None
        self._entry: Any = None

    def start(self, worker: Any) -> None:
        """Begin to send."""
        if CONTROL_QUEUE not in _queues(worker.app):
            return
        self._parts = Parts.make(settings)
        self._entry = worker.timer.call_repeatedly(settings.sweep_s, self._tick, priority=10)

    def _tick(self) -> None:
        assert self._parts is not None
        self._parts.queue.send_sweep(expires_s=settings.sweep_s)

    def stop(self, worker: Any) -> None:
        """Send no more."""
        if self._entry is not None:
            self._entry.cancel()
            self._entry = None


class Sender(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery publishes no types
    """Sends events to webhooks; part of every worker that serves the control queue."""

    requires: ClassVar = {"celery.worker.components:Timer"}

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        self._courier: Courier | None = None

    def start(self, worker: Any) -> None:
        """Begin to send."""
        if CONTROL_QUEUE in _queues(worker.app):
            from workers.webhooks.courier import Courier

            self._courier = Courier(Parts.make(settings))
            self._courier.start()

    def stop(self, worker: Any) -> None:
        """Send no more."""
        if self._courier is not None:
            self._courier.stop()
            self._courier = None


app.steps["worker"].add(SweepClock)
app.steps["worker"].add(Sender)


def _queues(worker_app: Celery) -> tuple[str, ...]:
    return tuple(sorted(worker_app.amqp.queues.consume_from))


class Pulse(threading.Thread):
    """Beats for a worker, and ends it when it stopped hearing its queues."""

    def __init__(self, name: str, queues: tuple[str, ...], parts: Parts) -> None:
        super().__init__(name="pulse", daemon=True)
        self._heartbeat = Heartbeat(name, queues, process=uuid.uuid4().hex)
        self._parts = parts
        self._has_beaten = self._has_warned = False
        self._over = threading.Event()
        self._idle_beside_work_since: float | None = None

    def run(self) -> None:
        """Beat until the end."""
        while True:
            try:
                self.beat()
                self._listen()
            except StorageError as error:
                _log.warning("no heartbeat: %s", error)
            if self._over.wait(INTERVAL_S):
                break

    def beat(self) -> None:
        """Say that the worker lives, and look whether another one says so under its name. Raises LiveUnavailable."""
        self._heartbeat = replace(self._heartbeat, memory_bytes=family_bytes(os.getpid()))
        last = self._parts.live.heartbeats.beat(self._heartbeat)
        # What was there before the first beat may be of one that died; what came after it is of one that lives.
        is_foreign = self._has_beaten and last is not None and last.process != self._heartbeat.process
        self._heartbeat = replace(self._heartbeat, has_namesake=is_foreign)
        self._has_beaten = True
        if is_foreign and not self._has_warned:
            self._has_warned = True
            _log.warning(
                "another worker that is alive is named %s too: they count as one wherever workers are shown or counted;"
                " start each with a --name of its own",
                self._heartbeat.worker,
            )

    def _listen(self) -> None:
        # A consumer that lost its connection can look alive and take nothing for ever. Nothing but a new process is
        # known to cure every form of it, and messages wait meanwhile although this worker is idle.
        idle = not worker_state.reserved_requests and not worker_state.should_stop
        work_waits = idle and any(self._parts.live.waiting_messages(queue) for queue in self._heartbeat.queues)
        if not work_waits:
            self._idle_beside_work_since = None
        elif self._idle_beside_work_since is None:
            self._idle_beside_work_since = time.monotonic()
        elif time.monotonic() - self._idle_beside_work_since > _DEAF_S:
            _log.critical("messages wait and this worker takes none: it ends itself to be started afresh")
            os._exit(70)

    def stop(self) -> None:
        """Say good-bye."""
        self._over.set()
        try:
            self._parts.live.heartbeats.end(self._heartbeat.worker)
        except StorageError as error:
            _log.warning("no good-bye: %s", error)


class Once:
    """Lets a worker take one task only, and ends it after that, or when none came in time.

    All of it runs on the event loop of the worker's main process, between two messages.
    """

    def __init__(self, consumer: Any, wait_s: float) -> None:
        self._consumer = consumer
        self._until = time.monotonic() + wait_s
        self._closed_at: float | None = None
        consumer.timer.call_repeatedly(_ONCE_LOOK_S, self._look)

    def close(self) -> None:
        """Take nothing more."""
        if self._closed_at is None:
            self._closed_at = time.monotonic()
            for queue in _queues(self._consumer.app):
                self._consumer.call_soon(self._consumer.cancel_task_queue, queue)

    def _look(self) -> None:
        if worker_state.reserved_requests:
            self.close()
        elif self._closed_at is None:
            if time.monotonic() > self._until:
                self.close()
        elif time.monotonic() - self._closed_at > _ONCE_SETTLES_S and not worker_state.should_stop:
            _log.info("the one task is done, or none came: this worker ends")
            os.kill(os.getpid(), signal.SIGTERM)


_once: Once | None = None
_pulse: Pulse | None = None


def _say(text: str, stream: Any = None) -> None:
    """What Celery says from within its signal handlers, as a line of ours: where a logger could wait for itself."""
    record = logging.makeLogRecord({"name": "celery.apps.worker", "levelname": "INFO", "msg": text.strip()})
    os.write(2, formatter().format(record).encode() + b"\n")


apps_worker.safe_say = _say


@signals.setup_logging.connect
def _log_in_our_form(loglevel: int = logging.INFO, **_: Any) -> None:
    # Whoever answers this signal takes logging over, in the main process and in those of its pool.
    set_up(loglevel)


@signals.celeryd_after_setup.connect
def _prepare_stop_marker(sender: str, instance: Any, **_: Any) -> None:
    # Before the pool starts, because its processes inherit the environment.
    markers = settings.home / "stopping"
    markers.mkdir(parents=True, exist_ok=True, mode=0o700)
    for left in markers.iterdir():
        if not Path("/proc", left.name).exists():
            left.unlink(missing_ok=True)
    marker = markers / str(os.getpid())
    marker.unlink(missing_ok=True)
    os.environ[STOP_MARKER] = str(marker)
    # With it the pool's processes log in a form of their own before they ask which.
    os.environ.pop("_MP_FORK_LOGLEVEL_", None)


@signals.worker_ready.connect
def _begin_to_beat(sender: Any, **_: Any) -> None:
    global _pulse
    _pulse = Pulse(sender.hostname, _queues(sender.app), Parts.make(settings))
    _pulse.start()
    if os.environ.get(ONCE):
        global _once
        _once = Once(sender, float(os.environ[ONCE]))


@signals.worker_ready.connect
def _tell_isolation(**_: Any) -> None:
    if not isolation.is_possible():
        then = "are refused" if settings.isolation == "required" else "are looked into with the network within reach"
        _log.warning(
            "the kernel does not let processes leave the network, so models, archives and tables from elsewhere %s "
            "(MODELYARD_ISOLATION=%s); it takes user namespaces",
            then,
            settings.isolation,
        )


@signals.task_received.connect
def _take_no_other(**_: Any) -> None:
    if _once is not None:
        _once.close()


@signals.worker_shutting_down.connect
def _tell_pool(**_: Any) -> None:
    # Celery tells a running task nothing; the supervising loop polls for this file.
    Path(os.environ[STOP_MARKER]).touch()
    if _pulse is not None:
        _pulse.stop()


@signals.worker_shutdown.connect
def _remove_stop_marker(**_: Any) -> None:
    Path(os.environ[STOP_MARKER]).unlink(missing_ok=True)
