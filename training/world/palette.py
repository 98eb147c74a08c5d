"""The world's colours by name, as display RGB in [0, 1]."""

from types import MappingProxyType

Colour = tuple[float, float, float]

PAINTS: MappingProxyType[str, Colour] = MappingProxyType(
    {
        "red": (0.85, 0.13, 0.12),
        "green": (0.12, 0.62, 0.20),
        "blue": (0.13, 0.30, 0.85),
        "yellow": (0.95, 0.80, 0.10),
        "purple": (0.55, 0.20, 0.70),
        "orange": (0.95, 0.48, 0.08),
    }
)
GROUNDS: MappingProxyType[str, Colour] = MappingProxyType(
    {
        "gray": (0.60, 0.60, 0.61),
        "beige": (0.86, 0.77, 0.62),
        "brown": (0.52, 0.35, 0.23),
        "mint": (0.60, 0.80, 0.66),
        "pink": (0.90, 0.66, 0.68),
        "white": (0.93, 0.93, 0.93),
    }
)
SKIES: MappingProxyType[str, Colour] = MappingProxyType(
    {
        "sky": (0.62, 0.79, 0.94),
        "cream": (0.95, 0.90, 0.79),
        "silver": (0.76, 0.77, 0.79),
    }
)
HAIRS: MappingProxyType[str, Colour] = MappingProxyType(
    {"black": (0.10, 0.09, 0.09), "brown": (0.36, 0.20, 0.11), "blond": (0.90, 0.74, 0.38)}
)
SKIN: Colour = (0.94, 0.76, 0.62)
WHITE: Colour = (1.0, 1.0, 1.0)


def darker(colour: Colour) -> Colour:
    """The second colour of a floor's pattern."""
    return (colour[0] * 0.62, colour[1] * 0.62, colour[2] * 0.62)
