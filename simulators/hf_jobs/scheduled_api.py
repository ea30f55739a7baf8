"""What the Hub does for scheduled jobs. Called under the world's lock, by a caller whose token is right."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulators.hf_jobs.operations import ProblemError, check_labels, read_object
from simulators.hf_jobs.scheduled import CronError
from simulators.server import Reply, Request, as_json

if TYPE_CHECKING:
    from simulators.hf_jobs.operations import Operations
    from simulators.hf_jobs.scheduled import Scheduled, Schedules


class ScheduledOperations:
    """One method an operation: request and the parts of its path -> reply. Raises `ProblemError`."""

    ROUTES = (
        ("POST", "/api/scheduled-jobs/{ns}", "schedule"),
        ("GET", "/api/scheduled-jobs/{ns}", "scheduled_list"),
        ("GET", "/api/scheduled-jobs/{ns}/{id}", "scheduled"),
        ("DELETE", "/api/scheduled-jobs/{ns}/{id}", "unschedule"),
        ("POST", "/api/scheduled-jobs/{ns}/{id}/suspend", "suspend"),
        ("POST", "/api/scheduled-jobs/{ns}/{id}/resume", "resume"),
        ("POST", "/api/scheduled-jobs/{ns}/{id}/run", "trigger"),
        ("POST", "/api/scheduled-jobs/{ns}/{id}/schedule", "reschedule"),
        ("PUT", "/api/scheduled-jobs/{ns}/{id}/labels", "scheduled_labels"),
    )

    def __init__(self, jobs: Operations, schedules: Schedules) -> None:
        self._jobs = jobs
        self._schedules = schedules

    def do_schedule(self, request: Request, parts: dict[str, str]) -> Reply:
        """Take one."""
        wish = read_object(request)
        self._jobs.check_spec(parts["ns"], wish.get("jobSpec"))
        try:
            return self._show(self._schedules.create(parts["ns"], wish))
        except CronError as error:
            raise ProblemError(400, str(error)) from None

    def do_scheduled_list(self, _request: Request, parts: dict[str, str]) -> Reply:
        """List them all: the vendor filters nothing here, its client does."""
        self._jobs.check_namespace(parts["ns"])
        mine = [one for one in self._schedules.all.values() if one.namespace == parts["ns"]]
        return as_json(200, [self._schedules.spell(one) for one in mine])

    def do_scheduled(self, _request: Request, parts: dict[str, str]) -> Reply:
        """Show one."""
        return self._show(self._one(parts))

    def do_unschedule(self, _request: Request, parts: dict[str, str]) -> Reply:
        """Forget it; a job of it that runs goes on."""
        del self._schedules.all[self._one(parts).id]
        return Reply(204)

    def do_suspend(self, _request: Request, parts: dict[str, str]) -> Reply:
        """Pause it."""
        self._schedules.change(self._one(parts), suspended=True)
        return Reply(204)

    def do_resume(self, _request: Request, parts: dict[str, str]) -> Reply:
        """Let it go on."""
        self._schedules.change(self._one(parts), suspended=False)
        return Reply(204)

    def do_trigger(self, _request: Request, parts: dict[str, str]) -> Reply:
        """Run it once, now, beside its schedule."""
        one = self._one(parts)
        if not self._schedules.may_run(one):
            raise ProblemError(409, "A job of this scheduled job is already running")
        return self._jobs.show(self._schedules.run_now(one))

    def do_reschedule(self, request: Request, parts: dict[str, str]) -> Reply:
        """Give it another schedule."""
        one = self._one(parts)
        try:
            self._schedules.change(one, schedule=str(read_object(request).get("schedule") or ""))
        except CronError as error:
            raise ProblemError(400, str(error)) from None
        return self._show(one)

    def do_scheduled_labels(self, request: Request, parts: dict[str, str]) -> Reply:
        """Replace its labels."""
        one, labels = self._one(parts), read_object(request).get("labels") or {}
        check_labels(labels)
        one.spec = {**one.spec, "labels": dict(labels)}
        return self._show(one)

    def _show(self, one: Scheduled) -> Reply:
        return as_json(200, self._schedules.spell(one))

    def _one(self, parts: dict[str, str]) -> Scheduled:
        self._jobs.check_namespace(parts["ns"])
        one = self._schedules.all.get(parts["id"])
        if one is None or one.namespace != parts["ns"]:
            raise ProblemError(404, "Scheduled job not found")
        return one
