"""What is to be done to projections before they are reconstructed."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from volrecon.strict_toml import Strict

Index = Annotated[int, Field(ge=0, le=1_000_000)]
Interval = Annotated[tuple[Index, Index], Field(strict=False)]
Factor = Annotated[int, Field(ge=1, le=64)]


class Preparation(Strict):
    """Steps in the order in which they are taken. Rows and columns are those of the file, [start, stop).

    Attributes:
        lowest_transmission: what darker measurements, zero and negative ones among them, are raised to before -log.
            The default is a line integral of 9.2; hardly any detector measures beyond.
        empty: one or two ranges of columns where every view sees nothing but air. Every view of every row is divided
            by its mean transmission there, between two ranges by the line through both.
        columns, rows: the part of the detector that is kept.
        bin_vu: pixels (v, u) averaged into one; counts before -log. What is left over at the end is cut.
        rings: columns of the running median that stripes stand out from (see `rings`), an odd number, at least twice as
            wide as the widest stripe and no wider than need be.
        axis: the column of the rotation axis, or "find"; None leaves it where the geometry says.
    """

    lowest_transmission: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    empty: Annotated[tuple[Interval, ...], Field(strict=False, max_length=2)] = ()
    columns: Interval | None = None
    rows: Interval | None = None
    bin_vu: Annotated[tuple[Factor, Factor], Field(strict=False)] = (1, 1)
    rings: Annotated[int, Field(ge=3, le=9999)] | None = None
    axis: Literal["find"] | Annotated[float, Field(ge=-1e6, le=1e6)] | None = None

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.rings is not None and self.rings % 2 == 0:
            raise ValueError(f"rings is {self.rings}; give an odd number of columns")
        for start, stop in self.empty:
            if stop <= start:
                raise ValueError(f"the empty columns {start}:{stop} hold none")
        if len(self.empty) == 2 and self.empty[0][1] > self.empty[1][0]:
            raise ValueError(f"the empty columns {self.empty[0]} and {self.empty[1]} must follow each other")
        return self

    def changed(self) -> dict[str, Any]:
        """The steps that differ from doing nothing, as plain JSON."""
        return self.model_dump(mode="json", exclude_defaults=True)
