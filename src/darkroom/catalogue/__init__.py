"""The models, one card each: what a slug takes, what it costs, what it sets by itself. A model is data."""

from darkroom.catalogue.card import Card, Sampling
from darkroom.catalogue.parameter import Kind, Parameter, Value
from darkroom.catalogue.reading import read_catalogue

__all__ = ["Card", "Kind", "Parameter", "Sampling", "Value", "read_catalogue"]
