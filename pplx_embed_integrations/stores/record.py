"""What a table says of itself: what made its vectors, their width, which forms are kept, and the format's version.

Knows the record and how two are compared; must not know rows, files or any model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from ..errors import InputError, StoreError

Keep = Literal["both", "int8", "bits"]
"""Forms of a vector in the table: int8 codes, packed bits, or both: bits to find candidates, codes to rank them."""

FORMAT = 1
_KEY = b"pplx_embed"
_DECISIVE = ("checkpoint", "format")
"""What two embedders must agree on for their vectors to be searched together, in an identity that says so; what else is
in it, such as the arithmetic of the machine, matters to what is written."""


def check_keep(keep: object) -> None:
    """Refuse what is no form.

    Raises:
        InputError: It is not `"both"`, `"int8"` or `"bits"`.

    Example:
        >>> check_keep("both")
    """
    if keep not in get_args(Keep):
        raise InputError(f'keep={keep!r} is unknown; use "both", "int8" (codes) or "bits" (packed bits)')


@dataclass(frozen=True)
class Record:
    """What a table says of itself.

    Attributes:
        made_by: What makes its vectors comparable with others: the embedder's identity, opaque here.
        dimensions: Width of a vector.
        keep: Which forms are kept.
        format: Version of the layout.
        notes: What else its maker wants to find again; compared with nothing.

    Example:
        >>> record = Record({"model": "miniature"}, 256)
        >>> Record.read(record.write(), table="chunks") == record
        True
    """

    made_by: Mapping[str, Any]
    dimensions: int
    keep: Keep = "both"
    format: int = FORMAT
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def has_bits(self) -> bool:
        """Whether rows carry packed bits."""
        return self.keep != "int8"

    @property
    def has_codes(self) -> bool:
        """Whether rows carry int8 codes."""
        return self.keep != "bits"

    def write(self) -> dict[bytes, bytes]:
        """Return the record as metadata of an Arrow schema."""
        fields = {"format": self.format, "made_by": dict(self.made_by), "dimensions": self.dimensions}
        return {_KEY: json.dumps({**fields, "keep": self.keep, "notes": dict(self.notes)}, sort_keys=True).encode()}

    @classmethod
    def read(cls, metadata: Mapping[bytes, bytes] | None, *, table: str) -> Record:
        """Read the record from a schema's metadata.

        Raises:
            StoreError: There is none, or it is of a later version.
        """
        if _KEY not in (metadata or {}):
            raise StoreError(
                f"{table} was not made by this package, so nothing says which model its vectors are from; "
                "use another name= or another folder"
            )
        assert metadata is not None
        fields = json.loads(metadata[_KEY])
        if fields["format"] > FORMAT:
            raise StoreError(
                f"{table} has format {fields['format']}, and this version of pplx-embed-integrations reads up to "
                f'{FORMAT}; type: pip install --upgrade "pplx-embed-integrations[store]"'
            )
        return cls(fields["made_by"], fields["dimensions"], fields["keep"], fields["format"], fields.get("notes", {}))

    def check(
        self,
        *,
        made_by: Mapping[str, Any] | None,
        dimensions: int | None = None,
        keep: Keep | None = None,
        table: str,
        writing: bool = False,
    ) -> None:
        """Refuse a table that was made with something else.

        Args:
            made_by: What the caller's vectors are made by; None to ask nothing.
            dimensions: Their width; None to ask nothing.
            keep: The forms the caller wants; None to take what is there.
            table: What errors call the table.
            writing: Whether vectors are to be added, which must be made like those that are there in every respect.

        Raises:
            InputError: Something differs; the message names it.
        """
        differ = []
        if made_by is not None:
            told = not writing and all(name in made_by and name in self.made_by for name in _DECISIVE)
            names = _DECISIVE if told else sorted({*made_by, *self.made_by})
            differ += [
                f"{name}: {self.made_by.get(name)!r} there, {made_by.get(name)!r} given"
                for name in names
                if self.made_by.get(name) != made_by.get(name)
            ]
        if dimensions is not None and dimensions != self.dimensions:
            differ.append(f"dimensions: {self.dimensions} there, {dimensions} given")
        if keep is not None and keep != self.keep:
            differ.append(f"keep: {self.keep!r} there, {keep!r} given")
        if differ:
            raise InputError(
                f"{table} holds vectors that cannot be compared with the ones given ({'; '.join(differ)}). "
                "Open it with what made it, or index into another name= or folder"
            )
