"""Start a lab's supervisor, give it its plan, and turn what it refuses into sentences."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from netlab.engine.channel import Channel
from netlab.engine.lower import Indexes, Program, lower
from netlab.engine.state import Claim
from netlab.errors import CapabilityError, EngineError, OperationError
from netlab.machine.local import Agent, Local, Machine
from netlab.model.topology import Topology
from netlab.plan.backend import Backend
from netlab.plan.operations import (
    AddNode,
    AddQdisc,
    AddTap,
    AddTunnel,
    AddVeth,
    AddWire,
    CheckCongestion,
    Operation,
    Plan,
    SetFirewall,
    SetSysctl,
)

Json = dict[str, Any]
AGENT = Path(__file__).resolve().parent.parent / "agents" / "supervisor.py"

_CAP_NET_ADMIN, _CAP_SYS_ADMIN = 12, 21


def can_without_user_namespace() -> bool:
    """Tell whether this process may make namespaces directly, as root may."""
    with open("/proc/self/status") as status:  # noqa: PTH123
        line = next(line for line in status if line.startswith("CapEff:"))
    held = int(line.split()[1], 16)
    return bool(held >> _CAP_NET_ADMIN & 1 and held >> _CAP_SYS_ADMIN & 1 and os.geteuid() == 0)


@dataclass(slots=True)
class Supervisor:
    """A supervisor we started: the first connection to it, which is its life before `commit`."""

    channel: Channel
    agent: Agent
    claim: Claim
    rootless: bool
    indexes: Indexes = field(default_factory=Indexes)
    told: Json = field(default_factory=dict[str, Any])

    def build(
        self,
        plan: Plan,
        *,
        step: Callable[[int], None] | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> int:
        """Apply a plan; returns the nanoseconds it took the supervisor.

        `step` is called after each operation, and the supervisor waits until it returns.
        `meanwhile` is called once, while the kernel works.
        """
        self.channel.on_step = step
        number = self._send(lower(plan.operations, self.indexes), step=step is not None)
        if meanwhile is not None:
            meanwhile()
        self.told = describe(plan, self.indexes)
        answer = checked(self.channel.answer(number), plan)
        return int(answer["ns"])

    def _send(self, program: Program, *, step: bool) -> int:
        request: Json = {"do": "build", "program": program.stages, "step": step}
        return self.channel.send(request, blob=program.blob)

    def hosts(self, text: str) -> None:
        """Give the processes of the lab a hosts file of their own."""
        checked(self.channel.request({"do": "hosts", "text": text}))

    def commit(self, **extra: Any) -> None:
        """Let the lab be seen and, if it is detached, outlive us; `extra` goes into its state."""
        told, self.told = {**self.told, **extra}, {}
        checked(self.channel.request({"do": "commit", "describe": told}))

    def namespaces(self) -> dict[str, str]:
        """Return by node what /proc calls its network namespace, such as `net:[4026532001]`."""
        inodes: dict[str, int] = checked(self.channel.request({"do": "namespaces"}))["inodes"]
        return {node: f"net:[{inode}]" for node, inode in inodes.items()}

    def end(self, timeout: float = 5.0) -> None:
        """End the lab, wait until the kernel has killed all of it, and remove its directory."""
        with contextlib.suppress(EngineError):  # gone already, or it does not answer
            self.channel.request({"do": "stop"}, timeout=timeout)
        self.channel.close()
        if self.agent.ended(timeout) is None:
            self.agent.kill()
            self.agent.ended(timeout)
        self.claim.remove()


def start(
    claim: Claim,
    lab: str,
    *,
    foreground: bool,
    rootless: bool | None,
    machine: Machine | None = None,
    agent: Path = AGENT,
) -> Supervisor:
    """Start a supervisor that holds `claim`; it works while the caller is still planning."""
    userns = not can_without_user_namespace() if rootless is None else rootless
    options: Json = {
        "lab": lab,
        "state": str(claim.path),
        "lock": claim.fd,
        "userns": userns,
        "foreground": foreground,
    }
    # The lock is one of the open file description: once started, the supervisor holds it too.
    started = (machine or Local()).spawn(
        agent,
        lambda control: json.dumps({**options, "control": control}),
        descriptors=(claim.fd,),
        log=claim.path / "supervisor.log",
    )
    return Supervisor(Channel(started.stream), started, claim, userns)


def plan_for(started: Supervisor, topology: Topology, impair: Backend | None = None) -> Plan:
    """Make the plan of a topology for the machine that a supervisor runs on.

    The machine is asked only what the topology needs; most need nothing special.
    """
    from netlab.plan.build import build

    if not any(link.forward or link.backward for link in topology.links):
        return build(topology)
    from netlab.engine.probe import quick

    return build(topology, quick(started.channel), impair)


def describe(plan: Plan, indexes: Indexes) -> Json:
    """What state.json says of the network, so that later commands need no YAML."""
    topology = plan.topology
    nodes: Json = {
        node.name: {"role": str(node.role), "hidden": node.hidden, "interfaces": []}
        for node in topology.nodes
    }
    for operation in plan.operations:
        if isinstance(operation, AddNode) and operation.node not in nodes:  # in an impaired link
            nodes[operation.node] = {"role": "wire", "hidden": True, "interfaces": []}
    for link in topology.links:
        for end, other in ((link.a, link.b), (link.b, link.a)):
            nodes[end.node]["interfaces"].append(
                {
                    "name": end.name,
                    "index": indexes.of.get((end.node, end.name), 0),
                    "mac": end.mac,
                    "mtu": end.mtu,
                    "addresses": [str(address) for address in end.addresses],
                    "peer": f"{other.node}:{other.name}",
                    "link": link.name,
                }
            )
    source = os.path.abspath(topology.source) if topology.source else ""  # noqa: PTH100
    known = [[node, device, index] for (node, device), index in indexes.of.items()]
    told = {"name": topology.name, "source": source, "nodes": nodes, "indexes": known}
    if any(link.forward or link.backward for link in topology.links):
        from netlab.engine.live import remember

        wired = {op.link for op in plan.operations if isinstance(op, AddWire)}
        told["impairments"] = remember(topology, wired)
    return told


def hosts(plan: Plan) -> str:
    """The text of the lab's /etc/hosts: every address of a visible node, its first one first."""
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    ends: dict[str, list[Any]] = {node.name: [] for node in plan.topology.nodes if not node.hidden}
    for node in ends:
        lines += [f"{address} {node}" for address in plan.topology.addresses(node)]
    return "\n".join(lines) + "\n"


def checked(answer: Json, plan: Plan | None = None) -> Json:
    """Return an answer, or raise what its error means."""
    error = answer.get("error")
    if error is None:
        return answer
    raise _exception(error, plan)


def _exception(error: Json, plan: Plan | None) -> EngineError | CapabilityError:
    kind = error.get("kind")
    if kind == "operation" and plan is not None:
        return operation_error(plan.topology.source, plan.operations, error)
    if kind == "namespace":
        return namespace_error(str(error["what"]), int(error.get("errno") or 0))
    if kind == "system":
        return EngineError(f"{error.get('what')}: {os.strerror(int(error.get('errno') or 0))}")
    return EngineError(f"the supervisor refused: {error.get('what') or error}")


def operation_error(
    source: str, operations: Sequence[Operation], error: Json
) -> OperationError | CapabilityError:
    """Say which operation the kernel refused, why, and which line of the file asked for it."""
    operation = operations[int(error["operation"])]
    mark = operation.mark
    place = f"{mark.file or source or 'topology'}:{mark.line}:{mark.column}: " if mark else ""
    what = explain(operation)
    number = int(error.get("errno") or 0)
    if "got" in error:
        return OperationError(f"{place}{what}: the kernel kept {error['got']!r} instead")
    reason = str(error.get("detail") or "").rstrip(".") or os.strerror(number)
    hint = None
    if number == errno.ENOENT and isinstance(operation, SetSysctl):
        hint = "this kernel has no such setting per network namespace"
    elif number == errno.ENOENT and isinstance(operation, AddQdisc):
        hint = f"this kernel has no {operation.qdisc.kind}; `netlab doctor` says what it has"
    elif number in (errno.EPERM, errno.EACCES) and isinstance(operation, SetSysctl):
        hint = "the kernel lets only the machine's administrator change it"
    elif isinstance(operation, SetFirewall) and "syntax error" not in reason:
        hint = "load the kernel's nf_tables and nft_ct modules, or ip_tables, and install nftables"
        return CapabilityError(f"{place}{what}: {reason}", hint=hint)
    elif number == errno.EOPNOTSUPP and isinstance(operation, AddTunnel):
        kind = type(operation.kind).__name__.lower()
        hint = f"`sudo modprobe {'ip_gre' if kind == 'gre' else kind}`"
        return CapabilityError(f"{place}{what}: this kernel has no {kind}", hint=hint)
    elif "congestion" in reason:
        available = _setting("/proc/sys/net/ipv4/tcp_available_congestion_control")
        hint = f"this kernel has {available}; load a module such as tcp_vegas for another"
        return CapabilityError(f"{place}{what}: {reason}", hint=hint)
    return OperationError(f"{place}{what}: {reason}", hint=hint)


def explain(operation: Operation) -> str:
    """Name an operation in a message: its kind in words and its main values."""
    words = "".join(f" {c.lower()}" if c.isupper() else c for c in type(operation).__name__)
    if isinstance(operation, SetSysctl):
        return f"sysctl {operation.key} = {operation.value} in node {operation.node!r}"
    if isinstance(operation, AddVeth):
        return (
            f"add veth {operation.a.node}:{operation.a.name} {operation.b.node}:{operation.b.name}"
        )
    if isinstance(operation, AddTap):
        return f"add TAP device {operation.end.name} in node {operation.end.node!r}"
    if isinstance(operation, AddTunnel):
        kind, end = type(operation.kind).__name__.lower(), operation.end
        return f"add {kind} tunnel {end.name} in node {end.node!r}"
    if isinstance(operation, CheckCongestion):
        return (
            f"congestion control {operation.congestion} towards {operation.address} "
            f"in node {operation.node!r}"
        )
    wanted = ("dev", "name", "address", "to")
    values = [str(getattr(operation, name)) for name in wanted if hasattr(operation, name)]
    return " ".join([words.strip(), *values, f"in node {operation.node!r}"])


def _setting(path: str) -> str | None:
    try:
        with open(path) as file:  # noqa: PTH123
            return file.read().strip()
    except OSError:
        return None


def namespace_error(what: str, number: int) -> CapabilityError:
    """Say why a namespace could not be made, and the exact remedy where it is known."""
    hint = "run it as root"
    if what in ("user", "user map"):
        if _setting("/proc/sys/kernel/unprivileged_userns_clone") == "0":
            hint = "run `sudo sysctl kernel.unprivileged_userns_clone=1`, or netlab as root"
        elif _setting("/proc/sys/user/max_user_namespaces") == "0":
            hint = "run `sudo sysctl user.max_user_namespaces=10000`, or netlab as root"
        elif _setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
            hint = (
                "run `sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0`, "
                "or netlab as root"
            )
        elif number == errno.ENOSPC:
            hint = "the limit user.max_user_namespaces is reached; raise it, or run netlab as root"
        message = f"user namespaces are not allowed here ({os.strerror(number)})"
        return CapabilityError(message, hint=hint)
    if what == "/proc":
        message = f"a PID namespace cannot have its own /proc here ({os.strerror(number)})"
        hint = "a container hides parts of /proc: give it an unmasked /proc, or run as root"
        return CapabilityError(message, hint=hint)
    if number == errno.ENOSPC:
        hint = f"the limit user.max_{what.lower()}_namespaces is reached; raise it with sysctl"
    return CapabilityError(f"cannot make a {what} namespace ({os.strerror(number)})", hint=hint)
