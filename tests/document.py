"""Holds answers to the API's document, closed: a key, header or status that it doesn't have fails."""

import json
import re
from copy import deepcopy
from typing import Any

import httpx
from jsonschema import Draft202012Validator, FormatChecker
from referencing import Registry
from referencing.jsonschema import DRAFT202012

METHODS = ("get", "post", "put", "delete", "head", "patch")
TRANSPORT = {"date", "server", "content-type", "content-length", "transfer-encoding", "content-encoding"}


class Document:
    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        closed = deepcopy(document)
        for schema in closed["components"]["schemas"].values():
            _close(schema)
        self._registry = Registry().with_resource("urn:document", DRAFT202012.create_resource(closed))

    def operations(self) -> dict[str, tuple[str, str, dict[str, Any]]]:
        """Method, path and operation, by the operation's id."""
        return {
            item[method]["operationId"]: (method.upper(), path, item[method])
            for path, item in self.document["paths"].items()
            for method in METHODS
            if method in item
        }

    def resolved(self, part: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in part:
            found: Any = self.document
            for name in part["$ref"].removeprefix("#/").split("/"):
                found = found[name]
            part = found
        return part

    def check(self, schema: dict[str, Any], value: Any) -> None:
        """Raises `jsonschema.ValidationError`. schema: any part of the document."""
        rebased = json.loads(json.dumps(schema).replace('"#/', '"urn:document#/'))
        Draft202012Validator(rebased, registry=self._registry, format_checker=FormatChecker()).validate(value)

    def hold(self, operation_id: str, answer: httpx.Response) -> None:
        """Status, headers, media type and body are as documented for this operation."""
        method, path, operation = self.operations()[operation_id]
        assert answer.request.method == method
        assert re.fullmatch(re.sub(r"{\w+}", "[^/]+", path), answer.request.url.path)
        assert str(answer.status_code) in operation["responses"], answer.text
        documented = self.resolved(operation["responses"][str(answer.status_code)])
        self._hold_headers(documented.get("headers", {}), answer)
        content = documented.get("content")
        if content is None:
            assert not answer.content
            return
        media_type = answer.headers["content-type"].partition(";")[0]
        assert media_type in content
        if media_type == "application/json" and method != "HEAD":
            self.check(content[media_type]["schema"], answer.json())

    def _hold_headers(self, documented: dict[str, Any], answer: httpx.Response) -> None:
        for name, part in documented.items():
            header = self.resolved(part)
            if name in answer.headers:
                self.check(header["schema"], _read(answer.headers[name], header["schema"]["type"]))
            else:
                assert not header["required"], f"{name} is missing"
        assert set(answer.headers) <= documented.keys() | TRANSPORT | {"content-security-policy", "cache-control"}


def _close(schema: dict[str, Any]) -> None:
    if schema.get("type") == "object" and "properties" in schema:
        schema["additionalProperties"] = False
        for part in schema["properties"].values():
            _close(part)


def _read(text: str, kind: str) -> Any:
    return {"integer": int, "number": float, "string": str}[kind](text)
