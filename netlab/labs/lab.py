"""Lab: a topology, variations of it, one scenario, and checks on what was recorded.

    lab = Lab("...", topology="topology.yaml", variations={"ipv4": vary(), ...})

    @lab.scenario
    def say_hello(stage: Stage, *, family: str = "ipv4") -> None: ...

    @lab.check
    def hello_arrives(each: Evidence) -> Verdict: ...

    lab.fault(option(message="goodbye"), on="ipv4", breaks=hello_arrives)

The parameters of a check are the variations it compares, `-` written `_`; the one word `each`
stands for every variation in turn (or those of `on=`). A scenario's first parameter is the stage,
the others are its options: keyword-only, with defaults. Whatever does not fit is a
LabDefinitionError while the lab is imported, or at the latest in `Lab.verify`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, overload

from netlab.analysis.verdict import Verdict
from netlab.errors import LabDefinitionError
from netlab.labs.variation import Variation

if TYPE_CHECKING:
    from netlab.labs.claims import Finding

EACH = "each"
ABBREVIATIONS = frozenset(
    {"ack", "dns", "ecn", "fin", "icmp", "ip", "isn", "mss", "mtu", "nat", "rst", "rto", "rtt"}
    | {"sack", "syn", "tcp", "ttl", "udp"}
)

STATES = ("SYN-SENT", "SYN-RECV", "FIN-WAIT", "CLOSE-WAIT", "LAST-ACK", "TIME-WAIT")

Judge = Callable[..., Verdict]
Scenario = Callable[..., None]
Figures = Callable[..., Mapping[str, str]]
Ruling = Callable[..., "Finding"]


@dataclass(frozen=True, slots=True)
class Check:
    """A claim that can be judged; `sentence` is its name in words, `claim` what it says exactly.

    `variations` are those it compares; for a check of `each` variation, those it applies to. A
    check of `timing` depends on a machine that keeps up: should it fail on a suspect recording, it
    is inconclusive.
    """

    name: str
    claim: str
    judge: Judge
    variations: tuple[str, ...]
    each: bool
    timing: bool = False

    @property
    def sentence(self) -> str:
        """The name as a sentence, abbreviations as they are written."""
        name = self.name.replace("syn_ack", "syn-ack")
        for state in STATES:
            name = name.replace(state.lower().replace("-", "_"), state)
        words = name.split("_")
        words = [w.upper() if set(w.split("-")) <= ABBREVIATIONS else w for w in words]
        return " ".join([words[0][0].upper() + words[0][1:], *words[1:]])


@dataclass(frozen=True, slots=True)
class Fault:
    """A variation on top of `on` that must break the check `breaks`; `also` may break with it."""

    name: str
    variation: Variation
    on: str
    breaks: str
    also: tuple[str, ...] = ()


class Lab:
    """One exercise; made by its `lab.py`, found by `netlab.labs.discovery`.

    A variation, or a planted fault, may take `minutes`. `alone` names the variations (True: all)
    that measure a rate or times so short that nothing may run beside them. `paces` are divisors of
    every link's rate, from 1 up: where a machine does not keep up, the next one is tried.
    """

    def __init__(
        self,
        title: str,
        *,
        topology: str = "topology.yaml",
        variations: Mapping[str, Variation] | None = None,
        minutes: float = 5,
        ladder: str = "",
        alone: bool | tuple[str, ...] = (),
        paces: tuple[int, ...] = (1,),
        states: int = 0,
    ) -> None:
        self.title = title
        self.topology = topology
        self.variations: Mapping[str, Variation] = MappingProxyType(
            dict(variations) if variations else {"plain": Variation()}
        )
        self.minutes = minutes
        self.ladder = ladder
        self._alone = tuple(self.variations) if alone is True else alone or ()
        self.paces = paces
        self.states = states
        self.folder = Path()
        self._scenario: Scenario | None = None
        self._checks: dict[str, Check] = {}
        self._faults: list[Fault] = []
        self._figures: Figures | None = None
        self._claims: dict[str, Ruling] = {}
        self._by_parameter = {name.replace("-", "_"): name for name in self.variations}
        if EACH in self._by_parameter:
            raise LabDefinitionError(f"a variation cannot be called '{EACH}'")
        for variation in self._alone:
            self._known(variation, "alone=")

    @property
    def name(self) -> str:
        """The name of the lab is the name of its folder."""
        return self.folder.name

    def runs_alone(self, variation: str) -> bool:
        """Tell whether a variation measures what others that ran beside it would disturb."""
        return variation in self._alone

    @property
    def checks(self) -> tuple[Check, ...]:
        """The checks in the order in which they were written."""
        return tuple(self._checks.values())

    @property
    def faults(self) -> tuple[Fault, ...]:
        """The faults in the order in which they were written."""
        return tuple(self._faults)

    @property
    def run(self) -> Scenario:
        """The scenario; LabDefinitionError while there is none."""
        if self._scenario is None:
            raise LabDefinitionError(f"lab '{self.title}' has no scenario")
        return self._scenario

    @property
    def figures(self) -> Figures | None:
        """The function that measures the figures of the guide, if there is one."""
        return self._figures

    def scenario(self, function: Scenario) -> Scenario:
        """Take `function` as what the lab does; used as a decorator."""
        if self._scenario is not None:
            raise LabDefinitionError(f"'{function.__name__}' is a second scenario")
        self._scenario = function
        return function

    @overload
    def check(self, function: Judge, /) -> Judge: ...
    @overload
    def check(
        self, function: None = None, /, *, on: tuple[str, ...] | None = None, timing: bool = False
    ) -> Callable[[Judge], Judge]: ...
    def check(
        self,
        function: Judge | None = None,
        /,
        *,
        on: tuple[str, ...] | None = None,
        timing: bool = False,
    ) -> Judge | Callable[[Judge], Judge]:
        """Take a function as a check; its parameters are the variations it looks at.

        `timing` says that a machine which does not keep up can make it fail: what it looks at is a
        time or a rate, or passes too quickly for a late sampler.
        """

        def take(judge: Judge) -> Judge:
            if judge.__name__ in self._checks:
                raise LabDefinitionError(f"two checks are called '{judge.__name__}'")
            self._checks[judge.__name__] = self._checked(judge, on, timing=timing)
            return judge

        return take if function is None else take(function)

    def figure(self, function: Figures) -> Figures:
        """Take a function that returns the figures of the guide; its parameters are variations."""
        self.parameters(function, "figures")
        self._figures = function
        return function

    @property
    def claims(self) -> Mapping[str, Ruling]:
        """The functions that rule on claims of the documents, by the number of the claim."""
        return MappingProxyType(self._claims)

    def claim(self, number: str) -> Callable[[Ruling], Ruling]:
        """Take a function as what rules on a claim of labs/claims.yaml from recordings.

        Its parameters are the variations it looks at.
        """

        def take(function: Ruling) -> Ruling:
            if number in self._claims:
                raise LabDefinitionError(f"two functions rule on claim {number}")
            self.parameters(function, function.__name__)
            self._claims[number] = function
            return function

        return take

    def fault(
        self,
        variation: Variation,
        *,
        on: str,
        breaks: Judge,
        also: tuple[Judge, ...] = (),
        name: str = "",
    ) -> Fault:
        """Plant a fault: `variation` on top of `on` must break the check `breaks`."""
        self._known(on, "the fault")
        for judge in (breaks, *also):
            if judge.__name__ not in self._checks:
                raise LabDefinitionError(f"a fault breaks '{judge.__name__}', which is no check")
        if on not in self._checks[breaks.__name__].variations:
            raise LabDefinitionError(f"'{breaks.__name__}' does not look at variation '{on}'")
        fault = Fault(
            name or variation.summary,
            variation,
            on,
            breaks.__name__,
            tuple(judge.__name__ for judge in also),
        )
        self._faults.append(fault)
        return fault

    def verify(self) -> None:
        """Check what can only be seen once the whole lab is written.

        Every option is a parameter of the scenario, every check has a claim and a fault.
        """
        parameters = inspect.signature(self.run).parameters
        stage, *rest = parameters.values()
        if stage.default is not inspect.Parameter.empty or any(
            p.kind is not inspect.Parameter.KEYWORD_ONLY or p.default is inspect.Parameter.empty
            for p in rest
        ):
            raise LabDefinitionError(
                "a scenario takes the stage and keyword-only options with defaults"
            )
        for fault in (*self.variations.values(), *(fault.variation for fault in self.faults)):
            for option in fault.options:
                if option not in {p.name for p in rest}:
                    known = (p.name for p in rest)
                    raise LabDefinitionError(
                        f"the scenario has no option '{option}'{_hint(option, known)}"
                    )
        if not self._checks:
            raise LabDefinitionError("the lab has no check")
        for check in self.checks:
            if not check.claim:
                raise LabDefinitionError(f"check '{check.name}' has no docstring")
            if all(fault.breaks != check.name for fault in self.faults):
                raise LabDefinitionError(f"no fault breaks '{check.name}'")

    def _checked(self, judge: Judge, on: tuple[str, ...] | None, *, timing: bool) -> Check:
        claim = " ".join((inspect.getdoc(judge) or "").split("\n\n")[0].split())
        names = list(inspect.signature(judge).parameters)
        if names == [EACH]:
            for name in on or ():
                self._known(name, f"check '{judge.__name__}'")
            return Check(judge.__name__, claim, judge, on or tuple(self.variations), True, timing)
        if on is not None:
            raise LabDefinitionError(f"'{judge.__name__}': on= needs the parameter '{EACH}'")
        found = self.parameters(judge, judge.__name__)
        return Check(judge.__name__, claim, judge, found, False, timing)

    def parameters(self, function: Callable[..., Any], what: str) -> tuple[str, ...]:
        """Return the variations that the parameters of a function name, in their order."""
        found: list[str] = []
        for parameter in inspect.signature(function).parameters:
            if parameter not in self._by_parameter:
                raise LabDefinitionError(
                    f"'{parameter}', a parameter of '{what}', is no variation"
                    f"{_hint(parameter, self._by_parameter)}"
                )
            found.append(self._by_parameter[parameter])
        if not found:
            raise LabDefinitionError(f"'{what}' looks at no variation")
        return tuple(found)

    def _known(self, variation: str, what: str) -> None:
        if variation not in self.variations:
            raise LabDefinitionError(
                f"{what} names variation '{variation}', which the lab does not have"
                f"{_hint(variation, self.variations)}"
            )


def _hint(word: str, known: Any) -> str:
    close = get_close_matches(word, [str(name) for name in known], n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
