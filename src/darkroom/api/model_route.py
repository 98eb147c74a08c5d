"""Paths whose last part names a model."""

from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import Scope

NO_MODELS = frozenset(("get-user-credits", "loras", "requests"))
"""What else stands where a model's name does."""


class ModelRoute(APIRoute):
    """The API's own words name no model there: what they are asked wrongly is a wrong method, not an unknown model."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child_scope = super().matches(scope)
        if child_scope.get("path_params", {}).get("slug") in NO_MODELS:
            return Match.NONE, {}
        return match, child_scope
