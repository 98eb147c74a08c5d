"""Writes docs/errors.md from the table that the API's own document has its errors from."""

from pathlib import Path

from darkroom.api.refusals import code_table

PAGE = Path(__file__).parent.parent / "docs" / "errors.md"

INTRODUCTION = """\
# Errors

<!-- Written by scripts/errors_page.py from src/darkroom/api/refusals.py; a test holds the two together. -->

Every error has the same body, whatever the path:

```json
{
  "error": "seed must be a whole number from -1 to 999999999999999; got \\"many\\"",
  "code": "invalid_field",
  "field": "seed",
  "request_id": "6f0f3c1e2b5d4a7e9c8d1f2a3b4c5d6e"
}
```

`error` is for people, says what to do and may be worded otherwise tomorrow. `code` is for programs and stays. `field`
stands there only where one parameter or header is at fault. `request_id` is the answer's `x-request-id`, and what the
server's log has it under.

A request is refused, or it fails. What can be known at once is refused on the submit: nothing is kept and nothing is
charged. What takes the network or the model to know ends the request as FAILED: 422 on v1 and on both v2 addresses (502
on v1 where only the workers were at fault). Its price has been given back. On v2 a FAILED body also has `status` and
`metrics`.

A LoRA's host is asked on the submit, so that most of what can be wrong with its file is refused there. The same codes
end a request as FAILED where it shows only when the whole file has come.

429 has the headers `Retry-After` (seconds), `x-rate-limit-limit`, `x-rate-limit-remaining` and
`x-rate-limit-reset-at-utc`; the counters stand on every accepted submit of a key with a limit. 405 has `Allow`, 401
`WWW-Authenticate`, 416 `Content-Range`.

A worker that dies is replaced and its request made again; one that loses three workers ends FAILED with `worker_lost`,
which on v1 is 502: the same sent again may work, under a new `Idempotency-Key` if it had one: the
old one stands for the request that failed. A 502 without this body is from a proxy that did not find Darkroom
itself. A 504 is not the end of the request, which goes on: its result is found under the id in the body.

"""


def page() -> str:
    return INTRODUCTION + code_table() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
