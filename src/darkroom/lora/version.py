"""One version of a file behind an address."""

from dataclasses import dataclass

from darkroom.edit import LoraRef


@dataclass(frozen=True, kw_only=True, slots=True)
class Version:
    """url: of this very version, where its host has such. validator: the host's word for it, a change of which means
    another file; None if it has none. digest: SHA-256, where it is known. size_bytes: where the host says."""

    url: str
    name: str
    validator: str | None
    digest: str | None
    size_bytes: int | None = None

    @property
    def held(self) -> bool:
        """Whether another file could not pass for this one."""
        return self.digest is not None or self.validator is not None

    def ref(self, *, field: str, strength: float) -> LoraRef:
        """Raises ValueError if it is not held."""
        return LoraRef(
            field=field,
            name=self.name,
            strength=strength,
            digest=self.digest,
            url=self.url,
            validator=self.validator,
        )
