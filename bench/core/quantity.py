"""A number with its interval: one type for every figure that is shown with its error.

Records, calibrations, documents and tables all carry it.  Its JSON is {value, low, high}; unit and
provenance stand beside it in the document that holds it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import inf, isfinite
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, PlainSerializer

Provenance = Literal["counted", "measured", "fitted", "extrapolated", "claimed"]


@dataclass(frozen=True)
class Quantity:
    """A value, and the low and high end of its interval.

    The interval is 90 % for what was fitted or extrapolated, 95 % for a measured median (or the
    range of its samples, where they are few).  A bound has low 0 or high infinite."""

    value: float
    low: float
    high: float
    unit: str | None = None
    """s, usd, min/h, ...; None where the field's name says it."""
    provenance: Provenance | None = None

    @classmethod
    def exactly(cls, value: float, provenance: Provenance | None = None) -> "Quantity":
        return cls(value, value, value, provenance=provenance)

    @classmethod
    def at_most(cls, value: float, provenance: Provenance | None = None) -> "Quantity":
        return cls(value, 0.0, value, provenance=provenance)

    @classmethod
    def at_least(cls, value: float, provenance: Provenance | None = None) -> "Quantity":
        return cls(value, value, inf, provenance=provenance)

    @classmethod
    def sum(cls, terms: Iterable["Quantity"]) -> "Quantity":
        """Their sum, with all terms at the same end at once; 0 where there are none."""
        total = cls(0.0, 0.0, 0.0)
        for term in terms:
            total = total + term
        return total

    def __add__(self, other: "Quantity") -> "Quantity":
        return replace(
            self,
            value=self.value + other.value,
            low=self.low + other.low,
            high=self.high + other.high,
        )

    def scaled(self, factor: float) -> "Quantity":
        """In another unit, or so many times."""
        return replace(
            self, value=self.value * factor, low=self.low * factor, high=self.high * factor
        )

    def times(self, other: "Quantity | float") -> "Quantity":
        """The product of two positive quantities that may be at the same end at once."""
        if not isinstance(other, Quantity):
            return self.scaled(other)
        return replace(
            self,
            value=self.value * other.value,
            low=self.low * other.low,
            high=self.high * other.high,
        )

    def ratio(self, other: "Quantity") -> "Quantity":
        """This over the other, both positive, their ends taken against each other."""
        return replace(
            self,
            value=self.value / other.value,
            low=self.low / other.high,
            high=self.high / other.low,
        )

    def inverse(self, numerator: float = 1.0) -> "Quantity":
        """numerator over this: minutes an hour from seconds a minute."""
        return replace(
            self,
            value=numerator / self.value,
            low=numerator / self.high,
            high=numerator / self.low,
        )

    def widened(self, factor: float) -> "Quantity":
        """Both ends moved out by a factor of at least 1."""
        return replace(self, low=self.low / factor, high=self.high * factor)

    def as_dict(self) -> dict[str, float]:
        """Its JSON."""
        return {"value": self.value, "low": self.low, "high": self.high}


def fields_in_json(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A document's fields, each Quantity as its JSON."""
    return {
        name: field.as_dict() if isinstance(field, Quantity) else field
        for name, field in fields.items()
    }


def _positive(q: Quantity) -> Quantity:
    if not (isfinite(q.value) and isfinite(q.low) and isfinite(q.high)):
        raise ValueError("value, low and high must be finite numbers")
    if q.value <= 0.0 or q.low < 0.0 or q.high < 0.0:
        raise ValueError("value must be over 0, low and high at least 0")
    return q


PositiveQuantity = Annotated[
    Quantity,
    AfterValidator(_positive),
    PlainSerializer(Quantity.as_dict),
]
"""A finite positive quantity as a field of a pydantic model; {value, low, high} in JSON."""
