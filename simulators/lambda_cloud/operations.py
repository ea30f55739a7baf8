"""What each operation of Lambda's API does. Called under the world's lock, by a caller that was let in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulators.lambda_cloud import checks
from simulators.lambda_cloud.catalogue import KINDS, REGIONS, images, region
from simulators.lambda_cloud.instances import Instance, spell, spell_kind
from simulators.lambda_cloud.replies import ProblemError, data

if TYPE_CHECKING:
    from simulators.lambda_cloud.world import LambdaWorld
    from simulators.server import Reply, Request

_RULES = [
    {
        "protocol": "tcp",
        "port_range": [22, 22],
        "source_network": "0.0.0.0/0",
        "description": "Allow SSH from anywhere",
    },
    {"protocol": "icmp", "source_network": "0.0.0.0/0", "description": "Allow ping from anywhere"},
]
_MAY_LACK = frozenset({"name", "ip", "private_ip", "hostname", "tags", "jupyter_token", "jupyter_url", "first_healthy"})


def _body(request: Request) -> dict[str, object]:
    try:
        return checks.as_object(request.json())
    except ValueError:
        raise checks.invalid("JSON decode error") from None


class Operations:
    """One method an operation: request and the id in its path -> reply. Raises `ProblemError`."""

    def __init__(self, world: LambdaWorld) -> None:
        self._world = world

    # ── instances ────────────────────────────────────────────────────────────────────────────────────────────────

    def do_list(self, request: Request, _item: str) -> Reply:
        """List instances: all at once, or by pages where `page_size` asks for them (since 2026-10)."""
        faults = self._world.faults
        rows = [each for each in self._world.listed() if each.status != "terminated" or self._shows_terminated()]
        if request.query.get("cluster_id") or (rows and faults.take("list_flicker", of="list")):
            rows = []
        forced = faults.take("second_page", of="list")
        size = int(forced.number("size")) if forced else _page_size(request)
        if not size:
            return data([self._spell(each) for each in rows])
        token = request.query.get("page_token", "")
        if forced and not token and len(rows) <= size:
            return data([], page_token="page-0")  # noqa: S106 - a place in a list
        rest = [each for each in rows if each.number >= _page_start(token)]
        after = f"page-{rest[size].number}" if len(rest) > size else None
        return data([self._spell(each) for each in rest[:size]], page_token=after)

    def _shows_terminated(self) -> bool:
        return self._world.faults.take("terminated_listed", of="list") is not None

    def do_get(self, _request: Request, item: str) -> Reply:
        """Show one instance."""
        instance = self._found(item)
        if self._world.faults.take("get_flicker", of="get"):
            raise ProblemError("global/object-does-not-exist")
        return data(self._spell(instance))

    def do_rename(self, request: Request, item: str) -> Reply:
        """Rename an instance: the only thing about it that can be changed."""
        instance = self._found(item)
        body = _body(request)
        if body.keys() - {"name"}:
            raise checks.invalid("Extra inputs are not permitted")
        if "name" in body:
            instance.name = checks.text(body, "name", 64)
            self._world.meter.rename(instance.id, instance.name)
        return data(self._spell(instance))

    def do_launch(self, request: Request, _item: str) -> Reply:
        """Launch one instance."""
        body, world = _body(request), self._world
        checks.shape(body)
        keys = {key["name"]: key["public_key"] for key in world.keys.values()}
        checks.tags(body)
        order = checks.order(body, keys, missing_status=400 if world.faults.take("launch_400") else 404)
        where = {"type": order.kind.name, "region": order.region, "of": "launch"}
        if world.faults.take("billing_address", **where):
            raise ProblemError("global/invalid-address")
        if world.faults.take("quota", **where):
            raise ProblemError("global/quota-exceeded")
        full = order.region not in world.capacity[order.kind.name]
        if full or world.faults.take("launch_capacity", **where):
            raise ProblemError("instance-operations/launch/insufficient-capacity")
        return data({"instance_ids": [world.launch(order, faults=world.faults.take_for_instance(**where)).id]})

    def do_restart(self, request: Request, _item: str) -> Reply:
        """Restart instances."""
        instances = [self._found(each) for each in self._ids(request)]
        if not all(each.status == "active" for each in instances):
            raise ProblemError("global/conflict")
        for each in instances:
            self._world.restart(each)
        return data({"restarted_instances": [self._spell(each) for each in instances]})

    def do_terminate(self, request: Request, _item: str) -> Reply:
        """Terminate instances: all that are named, or none when one is unknown (which of the two is undocumented)."""
        instances, faults = [self._found(each) for each in self._ids(request)], self._world.faults
        unknown = faults.take("terminate_unknown", of="terminate")
        if unknown:
            raise ProblemError("global/unknown", status=int(unknown.number("status")))
        again = faults.take("terminate_again", of="terminate") if not all(each.alive for each in instances) else None
        if again:
            raise ProblemError("global/unknown" if again.text("how") == "unknown" else "global/object-does-not-exist")
        ignored = faults.take("terminate_ignored", of="terminate")
        for each in instances:
            if ignored:
                each.ignored = ignored.text("shows")
            else:
                self._world.terminate(each)
        rows = [self._spell(each) for each in instances]
        return data({"terminated_instances": [{**row, "status": "terminating"} if ignored else row for row in rows]})

    def _ids(self, request: Request) -> list[str]:
        body = _body(request)
        if "instance_ids" not in body:
            raise checks.invalid("instance_ids: Field required")
        return checks.names(body, "instance_ids")

    def _found(self, item: str) -> Instance:
        instance = self._world.found(item)
        if instance is None:
            raise ProblemError("global/object-does-not-exist")
        return instance

    def _spell(self, instance: Instance) -> dict[str, object]:
        row, faults = spell(instance), self._world.faults
        missing = faults.take("fields_missing")
        for field in _MAY_LACK & set(missing.text("fields").split(",") if missing else ()):
            row.pop(field, None)
        word = faults.take("unknown_status") if row["status"] == "active" else None
        if word:
            row["status"] = word.text("word")
        return row

    # ── the shop window ──────────────────────────────────────────────────────────────────────────────────────────

    def do_types(self, _request: Request, _item: str) -> Reply:
        """Show every type, sold-out ones with no region."""
        world = self._world
        return data(
            {
                name: {
                    "instance_type": spell_kind(kind, world.cents[name]),
                    "regions_with_capacity_available": [region(where) for where in world.capacity[name]],
                }
                for name, kind in KINDS.items()
            },
        )

    def do_regions(self, _request: Request, _item: str) -> Reply:
        """List regions."""
        return data([region(name) for name in REGIONS])

    def do_images(self, _request: Request, _item: str) -> Reply:
        """List images."""
        return data(images())

    # ── SSH keys ─────────────────────────────────────────────────────────────────────────────────────────────────

    def do_keys(self, _request: Request, _item: str) -> Reply:
        """List keys."""
        return data(list(self._world.keys.values()))

    def do_add_key(self, request: Request, _item: str) -> Reply:
        """Register a key, or make a pair when none is given."""
        body, world = _body(request), self._world
        name = checks.text(body, "name", 64, 1)
        public = checks.text(body, "public_key", 4096, 1)
        if not name or body.keys() - {"name", "public_key"}:
            raise checks.invalid("name: Field required, and nothing else than public_key beside it")
        if any(key["name"] == name for key in world.keys.values()):
            raise checks.invalid(
                "SSH key name must be unique"
            )  # the code is not documented; the text as peers match it
        private = ""
        if not public:
            public, private = _pair()
        elif not public.startswith(("ssh-", "ecdsa-", "sk-")) or len(public.split()) < 2:
            raise checks.invalid("public_key: not an OpenSSH public key")
        key = {"id": world.hexes(32), "name": name, "public_key": public}
        world.keys[key["id"]] = key
        return data({**key, "private_key": private} if private else key)

    def do_drop_key(self, _request: Request, item: str) -> Reply:
        """Delete a key; machines that have it keep it."""
        if self._world.keys.pop(item, None) is None:
            raise ProblemError("global/not-found")
        return data({})

    # ── what gpurun has no use for, told truly all the same ──────────────────────────────────────────────────────

    def do_filesystems(self, _request: Request, _item: str) -> Reply:
        """List file systems: none."""
        return data([])

    def do_firewall_rules(self, _request: Request, _item: str) -> Reply:
        """Show the account's rules: SSH and ping."""
        return data(_RULES)

    def do_firewall_rulesets(self, _request: Request, _item: str) -> Reply:
        """List rulesets: none."""
        return data([])

    def do_firewall_global(self, _request: Request, _item: str) -> Reply:
        """Show the global ruleset."""
        return data({"id": "global", "name": "Default Workspace Global Rules", "rules": _RULES})


def _page_size(request: Request) -> int:
    if "page_size" not in request.query:
        return 0
    try:
        size = int(request.query["page_size"])
    except ValueError:
        size = 0
    if not 1 <= size <= 1000:
        raise checks.invalid("page_size: Input should be between 1 and 1000")
    return size


def _page_start(token: str) -> int:
    if not token:
        return 0
    number = token.removeprefix("page-")
    if not number.isdecimal():
        raise checks.invalid("page_token: not a token of ours")
    return int(number)


def _pair() -> tuple[str, str]:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    private = Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return public.decode(), private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
