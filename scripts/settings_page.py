"""Writes docs/settings.md from the settings' own definitions."""

from pathlib import Path

from darkroom.settings import Settings, rows

PAGE = Path(__file__).parent.parent / "docs" / "settings.md"

INTRODUCTION = """\
# Settings

<!-- Written by scripts/settings_page.py from src/darkroom/settings.py; a test holds the two together. -->

Each setting is a variable of the environment, or a key in a TOML file: the same name in small letters without
`DARKROOM_`. The file is the one that `DARKROOM_CONFIG` names, else `darkroom.toml` in the working folder if there is
one. A command's flags win over variables, variables over the file, the file over the defaults. An empty variable counts
as not given.

Settings are read once, at the start. A bad value, or a name that is no setting, stops the start with a message that
names it. `darkroom settings` prints this list with the values in force.

```toml
# darkroom.toml
checkpoint = "Qwen/Qwen-Image-Edit-2509"
public_url = "https://images.example.com"
retention_s = 7200
fetch_allow = ["minio.internal:9000", "10.20.0.0/16"]
```

`DARKROOM_FETCH_ALLOW` opens the guarded fetcher's door to addresses that are not public. `host:port` lets through that
host alone on that port, whatever it resolves to; an address in place of the host (IPv6 in brackets) whichever name led
to it; a CIDR block every port of every address in it. Everything else that is private, loopback, link-local or
otherwise special stays shut.

Behind a proxy that ends TLS or changes the host, set either `DARKROOM_PUBLIC_URL`, which settles every link in every
answer, or `DARKROOM_TRUSTED_PROXIES`, if the server is reached under several names: `X-Forwarded-Proto` and
`X-Forwarded-Host` are then believed of a connection from one of these addresses. Let the proxy set both headers itself;
of several values the last counts. Nobody is believed by default.

| setting | default | what it does |
|---|---|---|
"""


def page() -> str:
    lines = [
        f"| `{row.name}` | {row.default} | {row.help.replace('|', chr(92) + '|')} |"
        for row in rows(Settings.model_construct())
    ]
    return INTRODUCTION + "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
