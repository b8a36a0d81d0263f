"""Scenarios: what must hold on which bag, written in a YAML, so that a folder of bags becomes a test suite."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from mfuser_ros import validated
from mfuser_ros.errors import ConfigurationError
from mfuser_ros.evaluation.bag.degrade import Weather
from mfuser_ros.evaluation.limits import parse_limit


def _is_limit(text: str) -> str:
    try:
        parse_limit(text)
    except ConfigurationError as error:
        raise ValueError(str(error)) from error
    return text


LimitText = Annotated[str, AfterValidator(_is_limit)]


class Twin(BaseModel):
    """The same drive under other conditions, and how figures must change from the one to the other."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bag: str | None = None  # another recording, below the folder of the YAML
    degrade: Weather | None = None  # or the same one, seen through other weather
    change: tuple[LimitText, ...] = Field(min_length=1)  # on twin minus bag: predicted.confidence<=-0.02

    @model_validator(mode="after")
    def _says_what_it_is(self) -> Twin:
        if (self.bag is None) == (self.degrade is None):
            raise ValueError("a twin is another bag, or the same one with degrade: give one of them")
        return self


class Scenario(BaseModel):
    """What must hold on a bag."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    bag: str  # below the folder of the YAML; with * or ? one test for each bag that fits
    topic: str | None = None  # None: all cameras together
    window: tuple[float, float] | None = None  # seconds after the first frame; None: all of it
    limits: tuple[LimitText, ...] = ()
    twins: tuple[Twin, ...] = ()

    @model_validator(mode="after")
    def _asks_for_something(self) -> Scenario:
        if not self.limits and not self.twins:
            raise ValueError(f"{self.name}: states neither limits nor twins")
        if self.window is not None and not 0 <= self.window[0] < self.window[1]:
            raise ValueError(f"{self.name}: window {list(self.window)} must be two rising times from 0 on")
        return self


class Suite(BaseModel):
    """A file of scenarios."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    scenarios: tuple[Scenario, ...] = Field(min_length=1)


@dataclass
class Case:
    """One scenario on one bag.

    Attributes:
        scenario: what must hold.
        bag: path of the bag.
        failures: limits that are broken, one line each.
        error: why it could not be judged; empty where it could.
        facts: every limit with its value.
        seconds: of network time on its frames.
    """

    scenario: Scenario
    bag: Path
    failures: list[str] = field(default_factory=list)
    error: str = ""
    facts: list[str] = field(default_factory=list)
    seconds: float = 0.0


def load_suite(path: Path) -> Suite:
    """The scenarios in a YAML file.

    Raises:
        ConfigurationError: the file is missing, is no YAML, or breaks a rule; the text names file and entry.
    """
    return validated.read(
        path,
        Suite,
        ConfigurationError,
        missing="give a YAML with name and scenarios",
        wrong="see docs/bags.md for the form",
    )


def cases(suite: Suite, folder: Path) -> list[Case]:
    """The scenarios with the bags that they speak of, below `folder`.

    Raises:
        ConfigurationError: no bag has the name of a scenario; a suite that tests nothing must not pass.
    """
    found = []
    for scenario in suite.scenarios:
        bags = sorted(folder.glob(scenario.bag)) if set("*?[") & set(scenario.bag) else [folder / scenario.bag]
        bags = [bag for bag in bags if bag.exists()]
        if not bags:
            raise ConfigurationError(f"{scenario.name}: no bag {scenario.bag} in {folder}: mend the name")
        for twin in scenario.twins:
            if twin.bag is not None and not (folder / twin.bag).exists():
                raise ConfigurationError(f"{scenario.name}: no twin {twin.bag} in {folder}: mend the name")
        found += [Case(scenario, bag) for bag in bags]
    return found


def junit(name: str, judged: Sequence[Case]) -> str:
    """The cases as JUnit XML, as CI systems read it."""
    failures = sum(bool(case.failures) and not case.error for case in judged)
    errors = sum(bool(case.error) for case in judged)
    counts = {"tests": str(len(judged)), "failures": str(failures), "errors": str(errors)}
    total = f"{sum(case.seconds for case in judged):.3f}"
    root = ET.Element("testsuites", counts | {"time": total})
    suite = ET.SubElement(root, "testsuite", {"name": name, **counts, "time": total})
    for case in judged:
        where = {"classname": f"{name}.{case.bag.name}", "name": case.scenario.name, "time": f"{case.seconds:.3f}"}
        entry = ET.SubElement(suite, "testcase", where)
        if case.error:
            ET.SubElement(entry, "error", {"message": _plain(case.error)})
        elif case.failures:
            ET.SubElement(entry, "failure", {"message": _plain("; ".join(case.failures))})
        ET.SubElement(entry, "system-out").text = _plain("\n".join(case.facts))
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _plain(text: str) -> str:
    """Without what XML cannot hold."""
    return "".join(letter for letter in text if letter.isprintable() or letter == "\n")
