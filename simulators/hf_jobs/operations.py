"""What each operation of the Hub does. Called under the world's lock, by a caller whose token is right."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from simulators.clock import iso
from simulators.hf_jobs import buckets
from simulators.hf_jobs.buckets import Bucket, NoFileError
from simulators.hf_jobs.flavors import FLAVORS
from simulators.server import Reply, Request, as_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from simulators.hf_jobs.world import HubWorld, Job

ORGANISATION = "acme"  # that the user may rent for
_LABEL = re.compile(r"[A-Za-z0-9_-]{1,100}")
_NAME = re.compile(r"[A-Za-z0-9._-]{0,100}")
_PAGE = 100
_FOR_EVER = 2**32


class ProblemError(Exception):
    """A refusal."""

    def __init__(self, status: int, words: str, code: str = "") -> None:
        super().__init__(words)
        self.reply = as_json(status, {"error": words})
        self.reply.headers["X-Error-Message"] = words
        if code:
            self.reply.headers["X-Error-Code"] = code


class Operations:
    """One method an operation: request and the parts of its path -> reply. Raises `ProblemError`."""

    def __init__(self, world: HubWorld, user: str) -> None:
        self._world = world
        self.user = user

    def do_whoami(self, _request: Request, _parts: dict[str, str]) -> Reply:
        """Say whose token it is."""
        orgs = [{"type": "org", "id": "5f" + "0" * 22, "name": ORGANISATION, "roleInOrg": "admin"}]
        scope = self._world.scope
        token = {"displayName": "rehearsal", "role": "write"} if scope is None else scope.spell()
        auth = {"type": "access_token", "accessToken": token}
        person = {"type": "user", "id": "5e" + "0" * 22, "name": self.user, "fullname": self.user}
        return as_json(200, {**person, "isPro": False, "canPay": True, "orgs": orgs, "auth": auth})

    def do_hardware(self, _request: Request, _parts: dict[str, str]) -> Reply:
        """Show what is rented, at which price a minute."""
        return as_json(200, [flavor.spell(self._world.micro[name]) for name, flavor in FLAVORS.items()])

    # ── jobs ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def do_submit(self, request: Request, parts: dict[str, str]) -> Reply:
        """Take a job."""
        spec = self.check_spec(parts["ns"], read_object(request))
        return self.show(self._world.submit(parts["ns"], spec))

    def show(self, job: Job) -> Reply:
        """Answer with a job."""
        return as_json(200, self._spell(job))

    def check_spec(self, namespace: str, spec: Any) -> dict[str, Any]:
        """Refuse a job that makes no sense."""
        self.check_namespace(namespace)
        if not isinstance(spec, dict) or spec.get("flavor") not in FLAVORS:
            raise ProblemError(400, f"Invalid flavor: {spec.get('flavor') if isinstance(spec, dict) else spec}")
        if not spec.get("command") or not (spec.get("dockerImage") or spec.get("spaceId")):
            raise ProblemError(400, "command and an image are required")
        check_labels(spec.get("labels") or {})
        for volume in spec.get("volumes") or ():
            if volume.get("type") == "bucket":
                self._bucket_of(volume["source"])
        return spec

    def do_list(self, request: Request, parts: dict[str, str]) -> Reply:
        """List jobs, newest first, by pages."""
        self.check_namespace(parts["ns"])
        now, world = self._world.clock.now(), self._world
        stages = {value for name, value in request.pairs if name == "stage"}
        labels = [tuple(value.split("=", 1)) for name, value in request.pairs if name == "label"]
        rows = [
            one
            for one in reversed(world.jobs.values())
            if one.namespace == parts["ns"]
            and not one.gone
            and one.listed_from <= now
            and (not stages or one.stage in stages)
            and all(one.labels.get(key) == value for key, value in labels)
        ]
        forced = world.faults.take("pages", of="list")
        size, start = int(forced.number("size")) if forced else _PAGE, int(request.query.get("cursor", "0"))
        reply = as_json(200, [self._spell(one) for one in rows[start : start + size]])
        if len(rows) > start + size:
            kept = [f"{name}={value}" for name, value in request.pairs if name != "cursor"]
            query = "&".join([*kept, f"cursor={start + size}"])
            reply.headers["Link"] = f'<http://{request.headers["host"]}{request.path}?{query}>; rel="next"'
        return reply

    def do_inspect(self, _request: Request, parts: dict[str, str]) -> Reply:
        """Show a job."""
        return self.show(self._job(parts))

    def do_cancel(self, _request: Request, parts: dict[str, str]) -> Reply:
        """End a job; what one gets for one that has ended is not documented."""
        job = self._job(parts)
        if job.terminal:
            raise ProblemError(400, f"Job is already {job.stage}")
        if not self._world.faults.take("cancel_ignored", of="cancel"):
            self._world.cancel(job)
        return self.show(job)

    def do_labels(self, request: Request, parts: dict[str, str]) -> Reply:
        """Replace a job's labels."""
        job, labels = self._job(parts), read_object(request).get("labels") or {}
        check_labels(labels)
        job.labels = dict(labels)
        return self.show(job)

    def do_logs(self, request: Request, parts: dict[str, str]) -> Reply:
        """Replay the log from its start, and go on as it grows."""
        job = self._job(parts)
        cut = self._world.faults.take("logs_cut", of="logs")
        limit = job.streamed + int(cut.number("after")) if cut else _FOR_EVER
        tail = int(request.query.get("tail", "0"))
        return Reply(200, content_type="text/event-stream", stream=self._flow(job, limit, tail))

    def _flow(self, job: Job, limit: int, tail: int) -> Iterator[bytes]:
        """Give the events one by one, without the lock; an empty piece drops the connection."""
        world, index = self._world, 0
        if tail and len(job.lines) > tail + 1:
            yield _event(*job.lines[0])
            index = len(job.lines) - tail
        while True:
            events = world.wait_for_lines(job, index, world.keep_alive_seconds)
            for text, when in events:
                if index >= limit:
                    yield b""
                    return
                yield _event(text, when)
                index += 1
                job.streamed = max(job.streamed, index)
            if index >= limit or world.closing:
                yield b""
                return
            if not events:
                if job.terminal:
                    return
                yield b": keep-alive\n\n"

    def do_metrics(self, _request: Request, parts: dict[str, str]) -> Reply:
        """Tell how busy it is, once: one that ended has no metrics."""
        if self._job(parts).stage != "RUNNING":
            raise ProblemError(406, "Job is not running")
        sample = {"cpu_usage_pct": 50, "memory_used_bytes": 2**30, "memory_total_bytes": 2**34, "gpus": {}}
        data = f"event: metric\ndata: {json.dumps(sample)}\n\n".encode()
        return Reply(200, content_type="text/event-stream", stream=iter([data]))

    def _job(self, parts: dict[str, str]) -> Job:
        self.check_namespace(parts["ns"])
        job = self._world.jobs.get(parts["id"])
        if job is None or job.gone or job.namespace != parts["ns"]:
            raise ProblemError(404, "Job not found")
        return job

    def check_namespace(self, namespace: str) -> None:
        """Refuse what the token may not rent for."""
        if namespace not in {self.user, ORGANISATION}:
            raise ProblemError(403, f"You don't have the required permissions in {namespace}")

    def _spell(self, job: Job) -> dict[str, Any]:
        now = self._world.clock.now()
        ran = None if job.started is None else int((job.finished or now) - job.started)
        spec = {key: value for key, value in job.spec.items() if key not in {"timeoutSeconds", "attempts", "labels"}}
        return {
            "id": job.id,
            "createdAt": iso(job.created),
            "startedAt": None if job.started is None else iso(job.started),
            "finishedAt": None if job.finished is None else iso(job.finished),
            **spec,
            "secrets": list(job.spec.get("secrets") or ()),
            "labels": job.labels,
            "timeout": self._world.timeout_of(job),
            "status": {"stage": job.stage, "message": job.message, "exposeUrls": None, "sshUrl": None},
            "durations": {
                "schedulingSecs": None if job.started is None else int(job.started - job.created),
                "runningSecs": ran,
                "totalSecs": int((job.finished or now) - job.created),
            },
            "owner": {"id": "5e" + "0" * 22, "name": job.namespace, "type": "user"},
            "initiator": {"type": "scheduled-job", "id": job.scheduled}
            if job.scheduled
            else {"type": "user", "id": "5e" + "0" * 22, "name": self.user},
            "retry": int(job.spec.get("attempts") or 1) - 1,
        }

    # ── buckets ──────────────────────────────────────────────────────────────────────────────────────────────────

    def do_create_bucket(self, request: Request, parts: dict[str, str]) -> Reply:
        """Make a bucket."""
        self.check_namespace(parts["ns"])
        name, world = f"{parts['ns']}/{parts['id']}", self._world
        told = {"url": f"http://{request.headers['host']}/buckets/{name}"}
        if name in world.buckets:
            return as_json(409, {**told, "error": "You already created this bucket"})
        folder = world.folder / "buckets" / name
        folder.mkdir(parents=True)
        private = read_object(request).get("visibility") == "private"
        world.buckets[name] = Bucket(name, folder, private, world.clock.now())
        return as_json(200, told)

    def do_bucket(self, _request: Request, parts: dict[str, str]) -> Reply:
        """Show a bucket."""
        bucket = self._bucket(parts)
        names = list(bucket.names())
        size = sum(bucket.place(name).stat().st_size for name in names)
        facts = {"id": bucket.id, "private": bucket.private, "createdAt": iso(bucket.created)}
        return as_json(200, {**facts, "size": size, "totalFiles": len(names)})

    def do_write_token(self, _request: Request, parts: dict[str, str]) -> Reply:
        """Let a client write to a store of its own."""
        self._bucket(parts)
        return self._token(self._world.stores.fresh())

    def do_read_token(self, _request: Request, parts: dict[str, str]) -> Reply:
        """Let a client read what the bucket holds now."""
        return self._token(self._world.stores.serve(self._bucket(parts)))

    def _token(self, address: str) -> Reply:
        until = int(self._world.clock.now()) + 3600
        return as_json(200, {"accessToken": f"xet_{self._world.hexes(16)}", "exp": until, "casUrl": address})

    def do_batch(self, request: Request, parts: dict[str, str]) -> Reply:
        """Give names to contents that were written, copy and delete."""
        bucket = self._bucket(parts)
        wanted = buckets.operations(request.body)
        if self._world.faults.take("batch_fails", of="batch"):
            return as_json(422, {"failed": [{"path": one["path"], "error": "Internal error"} for one in wanted]})
        written = self._world.stores.take({one["xetHash"] for one in wanted if one["type"] == "addFile"})
        failed = []
        for one in wanted:
            try:
                self._carry_out(bucket, one, written)
            except NoFileError as error:
                failed.append({"path": one["path"], "error": f"not found: {error}"})
        return as_json(422 if failed and len(failed) == len(wanted) else 200, {"failed": failed})

    def _carry_out(self, bucket: Bucket, one: dict[str, Any], written: dict[str, bytes]) -> None:
        place = bucket.place(one["path"])
        if one["type"] == "deleteFile":
            place.unlink(missing_ok=True)
            return
        empty = not one["xetHash"].strip("0")
        if one["type"] != "addFile" or not (empty or one["xetHash"] in written):
            raise NoFileError(one["xetHash"])
        place.parent.mkdir(parents=True, exist_ok=True)
        aside = place.with_name(f".{place.name}.aside")
        aside.write_bytes(b"" if empty else written[one["xetHash"]])
        aside.replace(place)

    def do_paths_info(self, request: Request, parts: dict[str, str]) -> Reply:
        """Show files by name; what is not there is left out."""
        bucket = self._bucket(parts)
        names = set(bucket.names())
        return as_json(200, [bucket.row(name) for name in read_object(request)["paths"] if name in names])

    def do_tree(self, request: Request, parts: dict[str, str]) -> Reply:
        """List files by prefix."""
        bucket, prefix = self._bucket(parts), parts.get("path", "")
        rows: dict[str, dict[str, Any]] = {}
        for name in bucket.names(prefix):
            below = name.removeprefix(prefix).lstrip("/")
            if request.query.get("recursive") == "true" or "/" not in below:
                rows[name] = bucket.row(name)
            else:
                folder = name[: len(name) - len(below)] + below.partition("/")[0]
                rows.setdefault(folder, {"type": "directory", "path": folder, "uploadedAt": iso(bucket.created)})
        return as_json(200, list(rows.values()))

    def do_head(self, request: Request, parts: dict[str, str]) -> Reply:
        """Show where a file's bytes are to be had."""
        bucket, (_, row) = self._bucket(parts), self._file(parts)
        route = f"http://{request.headers['host']}/api/buckets/{bucket.id}/xet-read-token"
        size = str(row["size"])
        headers = {"X-Xet-Hash": row["xetHash"], "X-Linked-Size": size, "X-Xet-Refresh-Route": route}
        return Reply(200, headers={**headers, "Content-Length": size})

    def do_resolve(self, request: Request, parts: dict[str, str]) -> Reply:
        """Give a file's bytes, or a part of them."""
        data, _ = self._file(parts)
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
        if asked is None:
            return Reply(200, data, "application/octet-stream")
        start, stop = int(asked[1]), int(asked[2] or len(data) - 1) + 1
        if start >= len(data):
            raise ProblemError(416, "Range Not Satisfiable")
        span = {"Content-Range": f"bytes {start}-{min(stop, len(data)) - 1}/{len(data)}"}
        return Reply(206, data[start:stop], "application/octet-stream", headers=span)

    def _file(self, parts: dict[str, str]) -> tuple[bytes, dict[str, Any]]:
        bucket = self._bucket(parts)
        try:
            return bucket.read(parts["path"]), bucket.row(parts["path"])
        except NoFileError:
            raise ProblemError(404, "Entry not found", "EntryNotFound") from None

    def _bucket(self, parts: dict[str, str]) -> Bucket:
        return self._bucket_of(f"{parts['ns']}/{parts['id']}")

    def _bucket_of(self, name: str) -> Bucket:
        bucket = self._world.buckets.get(name)
        if bucket is None:
            raise ProblemError(404, "Repository not found", "RepoNotFound")
        return bucket


def _event(text: str, when: str) -> bytes:
    return f"data: {json.dumps({'data': text, 'timestamp': when})}\n\n".encode()


def read_object(request: Request) -> dict[str, Any]:
    """Read a body that must be a JSON object."""
    try:
        found = request.json()
    except ValueError:
        raise ProblemError(400, "Invalid JSON") from None
    if not isinstance(found, dict):
        raise ProblemError(400, "Expected an object")
    return found


def check_labels(labels: dict[str, str]) -> None:
    """Refuse labels that the vendor would not take."""
    for key, value in labels.items():
        pattern = _NAME if key == "name" else _LABEL
        if not _LABEL.fullmatch(key) or not pattern.fullmatch(value):
            raise ProblemError(400, f"Invalid label {key}={value}")
