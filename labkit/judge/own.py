"""Claims of one's own: as data, which a notebook or a TOML file holds, and judged like those of the
original."""

import dataclasses
import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labkit.core.config import Config, in_words, read_field
from labkit.core.values import ConfigError, choice, number
from labkit.judge import claims
from labkit.store.run import Runs

FIELDS = [field.name for field in dataclasses.fields(Config) if field.name != "seed"]
SIDES = {"less": -1, "more": 1}


@dataclass(frozen=True, kw_only=True)
class Claim:
    """That one setting has more or less of a measure than another.

    Attributes:
        name: for where there is room for two words; the claims of a page have different ones.
        says: the claim, a sentence.
        first, second: what the two settings differ in, fields of `Config` by name; one that only
            the other has is the default here.
        measure: "log-loss area" (the mean of ln(loss) over the epochs, which says how fast a
            setting converges), "last loss", "test accuracy" or "training accuracy", the latter two
            recalibrated.
        expects: whether the first has "more" or "less" of it than the second.
        size: by how much, if the claim says so: accuracies in points, the last loss in nats, and of
            the log-loss area how many times as high the loss typically is.

    Raises:
        ConfigError: one of these is not possible; the sentence names it.
    """

    name: str
    says: str
    first: Mapping[str, Any]
    second: Mapping[str, Any] = field(default_factory=dict)
    measure: str = "log-loss area"
    expects: str
    size: float | None = None

    def __post_init__(self) -> None:
        if not re.search(r"\w", str(self.name)):
            raise ConfigError(f"name is {self.name!r}; a claim needs one with a letter in it.")
        named = f"of claim {self.name!r}"
        for side in ("first", "second"):
            given = getattr(self, side)
            if not isinstance(given, Mapping):
                raise ConfigError(
                    f"{side} {named} is {given!r}; it must name fields of Config, as "
                    "{'optimizer': 'sgd'} does."
                )
            given = {choice(f"a field in {side} {named}", k, FIELDS): v for k, v in given.items()}
            try:
                object.__setattr__(self, side, {k: read_field(k, v) for k, v in given.items()})
            except ConfigError as error:
                raise ConfigError(f"In {side} {named}, {error}") from error
        fixed = {
            "measure": choice(f"measure {named}", self.measure, claims.MEASURES),
            "expects": choice(f"expects {named}", self.expects, SIDES),
        }
        if self.size is not None:
            fixed["size"] = size = number(f"size {named}", self.size, above=0)
            side = SIDES[fixed["expects"]]
            if fixed["measure"] == "log-loss area" and math.log(size) * side <= 0:
                raise ConfigError(
                    f"size {named} is {size:g}; how many times as high a loss is that should be "
                    f"{fixed['expects']} must be {'above' if side > 0 else 'below'} 1."
                )
        for key, value in fixed.items():
            object.__setattr__(self, key, value)
        if len(self.needs()) < 2:
            raise ConfigError(f"first and second {named} are the same; they must differ.")

    def needs(self) -> dict[str, dict[str, Any]]:
        """The two settings in words, and all fields in which either is named."""
        names = [name for name in FIELDS if name in {*self.first, *self.second}]
        both = (self.first, self.second)
        sides = ({k: side.get(k, getattr(Config, k)) for k in names} for side in both)
        return {", ".join(in_words(k, v) for k, v in side.items()): side for side in sides}


def read_claims(path: str | Path) -> dict[str, Claim]:
    """The claims of a TOML file by name: a table for each, named so, with the keys of `Claim`.

    Raises:
        ConfigError: the file is not there, is no TOML, or states a claim that cannot be judged.
    """
    try:
        tables = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"the claims in {Path(path).absolute()} cannot be read ({reason})."
        ) from error
    keys = [f.name for f in dataclasses.fields(Claim) if f.name != "name"]
    required = {"says", "first", "expects"}
    found = {}
    for name, table in tables.items():
        for key in table if isinstance(table, dict) else ():
            choice(f"a key of claim {name!r} in {path}", key, keys)
        if not isinstance(table, dict) or not required <= set(table):
            raise ConfigError(
                f"claim {name!r} in {path} must be a table with {', '.join(sorted(required))}, and "
                f"may have {', '.join(sorted(set(keys) - required))}."
            )
        found[name] = Claim(name=name, **table)
    return found


def statement(claim: Claim) -> claims.Statement:
    """The claim as what `claims.judge` takes."""
    names, by, side = tuple(claim.needs()), claims.MEASURES[claim.measure], SIDES[claim.expects]
    size = claim.size
    if size is not None:
        size = math.log(size) if by.of is claims.area else side * size

    def judged(settings: claims.Settings) -> list[claims.Part]:
        groups = [settings[name] for name in names]
        return [claims.contrast(groups, names, claim.measure, side, size, times=True)]

    return claims.Statement(
        number=0,
        name=claim.name,
        section="",
        says=claim.says,
        predicts=f"The {by.what} of {names[0]} is {('higher', 'lower')[side < 0]} than that of "
        f"{names[1]}.",
        test=claims.WELCH + claims.IMAGES * (by.of is claims.test_percent),
        needs=claim.needs(),
        judge=judged,
        own=str,
        answers=by.answers,
    )


def verdicts_on(pairs: Iterable[tuple[Claim, Runs]]) -> list[claims.Judgement]:
    """The verdict on each claim from the runs beside it; none where a setting that it needs has no
    runs."""
    found = (claims.judge(statement(claim), runs) for claim, runs in pairs)
    return [one for one in found if one]
