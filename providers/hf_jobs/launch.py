"""One job at Hugging Face: its files into the bucket's prefix, then one POST that starts and bills it.

    <namespace>/gpurun: runs/<mark>/in/  request.json payload/ blobs/<sha256>        written here, read by mounted.py
                        runs/<mark>/out/ said.json manifest.json files/              written there, read by remote.py
    the run's store     mounted beside it: payload/hub_courier.py writes there, orchestrator/store_remote.py reads

Secrets go as the job's own: not into the bucket, the command, the labels or the environment, which the Hub shows.
    launch ── queue limit ── runs for timeoutSeconds ── ceiling
What waits past the queue limit is cancelled, since its time would end past the ceiling. Without hf_xet: inline.py.
"""

from __future__ import annotations

import json
import logging
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from providers import wire
from providers.errors import CredentialsError, NoCapacityError, ProviderError, QuotaError, UnclearError, UsageError
from providers.hf_jobs import images, inline, reading
from providers.hf_jobs.hub import MissingError, RefusalError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from providers.base import Job, Mark, Offer
    from providers.hf_jobs.hub import Hub

log = logging.getLogger("gpurun.hf")

BUCKET = "gpurun"
MOUNT, STORE = "/gpurun", "/gpurun-store"
QUEUE_SECONDS = 900.0  # a job was seen to wait for twelve hours (huggingface_hub 4376, 2026-06): not ours
_LEAST_SECONDS = 30  # of running: less is no job
_SPARE_SECONDS = 60.0  # of the deadline, for the last files to reach the bucket
_MIRROR_SECONDS = 10.0  # the mount itself takes up to 30 s to show a change
_SETTLE_SECONDS = 35.0  # for the mount to bring away what was written last (hf-mount: 2 s debounce, 30 s window)
_SUBMIT_SECONDS = 60.0


def bucket_of(namespace: str) -> str:
    """Name the bucket of an account: one for all runs, private."""
    return f"{namespace}/{BUCKET}"


def prefix_of(mark: Mark) -> str:
    """Name the folder of an attempt in the bucket."""
    return f"runs/{mark}"


def timeout_of(job: Job, queue_seconds: float) -> int:
    """Give the Hub's own time limit: it counts from the job's start, which may come as late as the queue limit."""
    return job.max_seconds - int(queue_seconds)


def launch(hub: Hub, namespace: str, job: Job, offer: Offer, queue_seconds: float, pace: float) -> str:
    """Ship, and submit once; gives the job's id.

    Raises:
        NoCapacityError, QuotaError, CredentialsError, UsageError: nothing was rented.
        UnclearError: it may have been.
        UnreachableError: the files did not get there, and nothing was asked for.
    """
    timeout = timeout_of(job, queue_seconds)
    if timeout < _LEAST_SECONDS:
        words = (
            f"{job.max_seconds} s to the ceiling, of which a job may wait for {queue_seconds:.0f}, leave no time to run"
        )
        raise UsageError(words, hint="raise --max-hours")
    if inline.is_needed():
        deadline = job.deadline.timestamp() - min(_SPARE_SECONDS, job.grace_seconds / 2)
        return _submit(hub, namespace, job, offer, timeout, _inline(inline.packed(job, deadline)))
    bucket, store = bucket_of(namespace), store_of(job)
    hub.make_bucket(bucket)
    if store:  # an empty folder can't be mounted
        hub.upload(store["mount"]["bucket"], [(b"gpurun\n", f"{store['mount']['path']}/.keep")])
    hub.upload(bucket, shipment(job, offer, timeout, pace))
    return _submit(hub, namespace, job, offer, timeout, _mounted(bucket, job.mark, store.get("mount")))


def store_of(job: Job) -> dict[str, Any]:
    """Give the leave to write into a store by a mount, for it is no secret; {} = there is no store."""
    found = {} if job.store is None else json.loads(job.store.reveal())
    return found if isinstance(found, dict) and "mount" in found else {}


def _mounted(bucket: str, mark: Mark, store: dict[str, str] | None) -> dict[str, Any]:
    """Say how a job gets what was shipped into its bucket, and where its store is."""
    from huggingface_hub import Volume

    volumes = [Volume(type="bucket", source=bucket, mount_path=MOUNT, path=prefix_of(mark))]
    if store is not None:
        volumes.append(Volume(type="bucket", source=store["bucket"], mount_path=STORE, path=store["path"]))
    places = [one.mount_path for one in volumes]
    return {"command": ["python3", "-B", f"{MOUNT}/in/payload/mounted.py", *places], "volumes": volumes, "labels": {}}


def _inline(packed: str) -> dict[str, Any]:
    """Say how a job gets what goes with it."""
    return {"command": inline.COMMAND, "env": {inline.VARIABLE: packed}, "labels": {inline.LABEL: "1"}}


def _submit(hub: Hub, namespace: str, job: Job, offer: Offer, timeout: int, shipped: dict[str, Any]) -> str:
    image = images.image_for(job.command, offer.gpu_count)
    log.info("%s runs in %s: %s", job.mark, image.name, image.reason)

    def call(api: HfApi) -> str:
        made = api.run_job(
            **shipped | {"labels": labels(job.mark, timeout) | shipped["labels"]},
            image=image.name,
            secrets={name: secret.reveal() for name, secret in job.secrets.items()} or None,
            flavor=offer.name,
            timeout=timeout,
            attempts=1,  # more would bill anew, from scratch
            name=str(job.mark),
            namespace=namespace,
        )
        return made.id

    try:
        job_id = hub.run("submit", call, _SUBMIT_SECONDS)
    except (QuotaError, CredentialsError):
        raise
    except RefusalError as error:
        raise UsageError(f"Hugging Face takes no such job: {error}") from error
    except MissingError as error:
        raise NoCapacityError(
            str(error), hint=f"is {namespace} the account that is to pay? GPURUN_HF_NAMESPACE"
        ) from error
    except ProviderError as error:
        raise UnclearError(f"{error}; it may have taken {job.mark}", hint=error.hint) from error
    if not reading.is_id(job_id):
        raise UnclearError(f"Hugging Face took {job.mark} and gave no id that can be used")
    return job_id


def labels(mark: Mark, timeout: int) -> dict[str, str]:
    """Give what anybody with the key can judge the job by."""
    return {
        **reading.OURS,
        reading.MARK: str(mark),
        reading.RUN: mark.run_id,
        reading.TIMEOUT: str(timeout),
        "gpurun-ceiling": f"{mark.ceiling:%Y-%m-%dT%H-%M-%SZ}",
    }


# ── what is shipped ──────────────────────────────────────────────────────────────────────────────────────────────


def shipment(job: Job, offer: Offer, timeout: int, pace: float) -> list[tuple[Path | bytes, str]]:
    """Name all files of a job and their places in the bucket; the request, which says what else there is, last."""
    base, seed = f"{prefix_of(job.mark)}/in", _seed(job)
    want: dict[str, tuple[int, Path]] = {}
    bundle = wire.digest_of(job.bundle)
    want[bundle] = job.bundle.stat().st_size, job.bundle
    for blob in job.blobs:
        want[blob.sha256] = blob.size, blob.path
    for _, path, digest in seed:
        want[digest] = path.stat().st_size, path
    request = {
        **_limits(job, offer, timeout, pace),
        "want": [[digest, size] for digest, (size, _) in want.items()],
        "bundle": bundle,
        "data": [[blob.name, blob.sha256] for blob in job.blobs],
        "step": job.checkpoint.name if job.checkpoint else "",
        "seed": [[name, digest] for name, _, digest in seed],
        "secrets": sorted(job.secrets),  # their names: the values come as the job's own
        "store": {**store_of(job), "settle_seconds": _SETTLE_SECONDS / pace},
    }
    return [
        *((path, f"{base}/payload/{path.name}") for path in _payload()),
        *((path, f"{base}/blobs/{digest}") for digest, (_, path) in want.items()),
        (json.dumps(request).encode(), f"{base}/request.json"),
    ]


def _limits(job: Job, offer: Offer, timeout: int, pace: float) -> dict[str, object]:
    """Spell limits that lie inside the Hub's own: it ends the job with SIGKILL, and nobody saves after that."""
    spare = min(_SPARE_SECONDS, job.grace_seconds / 2)
    early = {"deadline": job.deadline.timestamp() - spare, "max_seconds": timeout - spare}
    work = wire.job_json(job) | early
    if images.trains(job.command) and not job.setup:
        work |= {"setup": list(images.SETUP), "gpus": offer.gpu_count}
    return {
        "mark": str(job.mark),
        "arm": wire.arm_json(job) | early,
        "job": work,
        "spare_seconds": spare,
        "mirror_seconds": max(_MIRROR_SECONDS / pace, 0.1),
        "settle_seconds": _SETTLE_SECONDS / pace,
    }


def _seed(job: Job) -> list[tuple[str, Path, str]]:
    """Name the files of the checkpoint to carry on from."""
    if job.checkpoint is None:
        return []
    paths = sorted(path for path in job.checkpoint.rglob("*") if path.is_file())
    return [(path.relative_to(job.checkpoint).as_posix(), path, wire.digest_of(path)) for path in paths]


def _payload() -> list[Path]:
    folder = Path(str(files("payload").joinpath("README.md"))).parent
    return sorted(folder.glob("*.py"))
