"""The settings: one frozen tree, read once, from `DARKROOM_…` variables and a TOML file (variables win)."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from ipaddress import ip_network
from pathlib import Path
from re import fullmatch
from tomllib import TOMLDecodeError
from typing import Annotated, Any, Literal, get_args, get_origin

import platformdirs
from pydantic import Field, ValidationError, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from darkroom.allowlist import AllowList
from darkroom.errors import BadSetting

PREFIX = "DARKROOM_"
FILE_VARIABLE = PREFIX + "CONFIG"
SECRET = frozenset(("lora_tokens",))
"""Settings whose values are nobody's to read."""
HINT = " (`darkroom settings` lists them all)"
"""How messages about bad settings end."""
WORDS = {
    "device": "must be auto, cpu, cuda or cuda:N",
    "public_url": "must be an http(s) address without ? or #, like https://images.example.com",
    "hub_url": "must be an http(s) address without a path, like https://huggingface.co",
}
"""What the patterns of settings say."""


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="forbid",
        env_ignore_empty=True,
        allow_inf_nan=False,
    )

    data: Path = Field(
        default_factory=lambda: Path(platformdirs.user_data_dir("darkroom")),
        description="Folder of the ledger, the kept pictures and the results.",
        json_schema_extra={"default": "the user's data folder (Linux: ~/.local/share/darkroom)"},
    )
    checkpoint: str | None = Field(
        default=None,
        description="The model: a folder in diffusers' layout, or a Hugging Face id; unset: Qwen/Qwen-Image-Edit-2509 "
        "where it is in the Hugging Face cache and a GPU has room for it, else nano, the small one that comes along.",
    )
    dtype: Literal["auto", "bfloat16", "float32"] = Field(
        default="auto",
        description="What the engine computes in; auto: bfloat16 where the device is fast at it, else float32.",
    )
    device: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$",
        description="Where the engine computes: auto, cpu, cuda or cuda:N; auto: a worker on every GPU, else the CPU.",
    )
    device_memory_gb: float | None = Field(
        default=None,
        gt=0,
        description="GB (10⁹ bytes) of the device's memory that a worker may take; unset: all there is.",
    )
    quality_tier: Literal["exact", "fast"] = Field(
        default="exact",
        description="exact: everything is computed in `dtype`; fast: the transformer's large matrices are multiplied "
        "in float8 where the GPU can: quicker, in less memory, a little less exact.",
    )
    compile: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="Whether the transformer's small operations are fused: on a GPU by Triton kernels, on a CPU by "
        "torch's compiler; auto: where that is possible, on a CPU if the model is so large that it pays.",
    )
    encode_cache_mb: int = Field(
        default=256,
        ge=0,
        description="MiB kept of what prompts and pictures were encoded to, for edits that use them again; 0: none.",
    )
    host: str = Field(default="127.0.0.1", description="Address the server listens on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port the server listens on; 0 picks a free one.")
    public_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^/]+[^?#]*$",
        description="Address clients reach the server under, for links in answers; unset: the request's own host.",
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Comma list of addresses or CIDR whose X-Forwarded-Proto and X-Forwarded-Host are believed.",
    )
    retention_s: float = Field(
        default=3600, gt=0, description="Seconds a request, its inputs and its result are kept after it has ended."
    )
    upload_retention_s: float = Field(
        default=86400, gt=0, description="Seconds an uploaded picture is kept for requests that name it by its link."
    )
    upload_max_bytes: int = Field(
        default=2**30, gt=0, description="Most bytes of uploaded pictures kept at once for one key."
    )
    result_metadata: bool = Field(
        default=True,
        description="Whether seed, model, request id and LoRAs are written into the result's file.",
    )
    fetch_allow: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Comma list of host:port or CIDR, not public, that may be asked for files and sent webhooks.",
    )
    loras: Path | None = Field(
        default=None, description="Folder that LoRA files are kept in; unset: loras, in the folder `data`."
    )
    loras_gb: float = Field(
        default=50, gt=0, description="GB (10⁹ bytes) of LoRAs kept at most; the longest unused go first, pins never."
    )
    lora_max_bytes: int = Field(default=4 * 2**30, gt=0, description="Largest LoRA file taken.")
    lora_presets: Path | None = Field(
        default=None,
        description="TOML file that pins, replaces or adds LoRAs that go by a name, over Darkroom's own table.",
    )
    fast_steps: Literal[4, 8] = Field(
        default=8,
        description="Steps that go_fast takes where the Lightning LoRA of so many is installed "
        "(`darkroom loras fetch lightning_8_steps`).",
    )
    lora_tokens: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        repr=False,
        description="Comma list of host=token: sent to that host alone, for LoRAs that it does not give to everyone. "
        "Any key may then use what the token may read.",
    )
    hub_url: str = Field(
        default="https://huggingface.co",
        pattern=r"^https?://[^/?#]+$",
        description="Address of Hugging Face, or of a mirror, that LoRAs are fetched from.",
    )
    max_body_bytes: int = Field(default=64 * 2**20, gt=0, description="Largest request body taken.")
    max_picture_bytes: int = Field(default=32 * 2**20, gt=0, description="Largest input picture taken, as a file.")
    max_picture_px: int = Field(default=64_000_000, gt=0, description="Most pixels an input picture may have.")
    min_free_bytes: int = Field(
        default=256 * 2**20, ge=0, description="Free disk under `data` below which no job is accepted (503)."
    )
    lease_s: float = Field(default=30, gt=0, description="Seconds a worker holds a job without a sign of life.")
    affinity_slack: float = Field(
        default=5,
        ge=0,
        description="How far behind the first in fair order, in lengths of that job, one may stand for a worker that "
        "has its LoRAs merged to take it first; 0: no job goes before its turn.",
    )
    most_overtaken: int = Field(
        default=24, ge=0, description="How often a job may be overtaken so; then none goes before it any more."
    )
    step_deadline_s: float = Field(
        default=300,
        gt=0,
        description="Seconds a running job may go without finishing a stage or step; then its worker is replaced.",
    )
    setup_deadline_s: float = Field(default=1800, gt=0, description="Seconds a worker may take to load the model.")
    drain_s: float = Field(
        default=30,
        ge=0,
        description="Seconds a running job may still take when the service stops; then it goes back to the queue.",
    )
    v1_wait_s: float = Field(
        default=600, gt=0, description="Seconds a v1 call waits for its picture; then 504, and the job goes on."
    )
    log_format: Literal["console", "json"] = Field(default="console", description="How log lines are written.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least that is logged; `darkroom edit` takes warning unless this is set."
    )

    @field_validator("data", "loras", "lora_presets")
    @classmethod
    def _home(cls, value: Path | None) -> Path | None:
        return value and value.expanduser()

    @field_validator("fast_steps", mode="before")
    @classmethod
    def _number(cls, value: object) -> object:
        """Of a variable's text; pydantic reads none for a choice of numbers."""
        return int(value) if isinstance(value, str) and value.isdigit() else value

    @field_validator("fetch_allow", "trusted_proxies", "lora_tokens", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("fetch_allow")
    @classmethod
    def _allow(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        AllowList.read(value)
        return value

    @field_validator("lora_tokens")
    @classmethod
    def _tokens(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        # Not the entry itself: it may be a token.
        if not all(fullmatch(r"[A-Za-z0-9.-]+=[!-~]+", entry) for entry in value):
            raise ValueError("an entry is not host=token")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for entry in value:
            ip_network(entry)
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  the signature is the library's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def read_settings(**overrides: Any) -> Settings:
    """The settings as `overrides` (a command's flags; None: not given), the environment and the TOML file have them.

    The file is the one `DARKROOM_CONFIG` names, else darkroom.toml in the working folder if there is one. Raises
    `BadSetting` that names each bad key with its value.
    """
    named = os.environ.get(FILE_VARIABLE)
    if named and not Path(named).is_file():
        raise BadSetting(f"{FILE_VARIABLE} = {named!r}: there is no such file")
    file = named or "darkroom.toml"
    known = {PREFIX + name.upper() for name in Settings.model_fields} | {FILE_VARIABLE}
    variables = {name for name in os.environ if name.upper().startswith(PREFIX)}
    if unknown := sorted(name for name in variables if name.upper() not in known):
        raise BadSetting(f"unknown setting {', '.join(unknown)}{HINT}")

    class FromFile(Settings):
        model_config = SettingsConfigDict(toml_file=file)

    try:
        read = FromFile(**{name: value for name, value in overrides.items() if value is not None})
    except (TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadSetting(f"{file} is not TOML: {error}") from error
    except OSError as error:
        raise BadSetting(f"{file} can't be read: {error.strerror}") from error
    except ValidationError as error:
        problems = "; ".join(_problem(file, found) for found in error.errors())
        raise BadSetting(f"bad setting: {problems}{HINT}") from error
    # The class that knows the file stays in here: what has travelled to a worker compares equal to what was read.
    return Settings(**read.model_dump(exclude_unset=True))


def _problem(file: str, found: ErrorDetails) -> str:
    name, message = str(found["loc"][0]), found["msg"]
    if found["type"] == "extra_forbidden":
        # Names of variables are known by now.
        return f"{file}: there is no setting {name!r}; the nearest is {_nearest(name)}"
    if found["type"] == "string_pattern_mismatch":
        message = WORDS[name]
    shown = "" if name in SECRET else f" = {found['input']!r}"
    return f"{PREFIX}{name.upper()}{shown}: {message[:1].lower()}{message[1:]}"


def _nearest(name: str) -> str:
    wanted = name.lower().removeprefix(PREFIX.lower())
    return max(Settings.model_fields, key=lambda known: SequenceMatcher(a=wanted, b=known).ratio())


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A setting for people to read. name: its variable; in the TOML file it goes by that without the prefix, in small
    letters."""

    name: str
    value: str
    default: str
    help: str


def rows(settings: Settings | None) -> list[Row]:
    """All settings, in the order of their definition; None: without values."""
    listed = []
    for name, field in Settings.model_fields.items():
        stated = field.json_schema_extra
        default = stated["default"] if isinstance(stated, dict) else field.default
        listed.append(
            Row(
                name=PREFIX + name.upper(),
                value="" if settings is None else _value(settings, name),
                default=_shown(default),
                help=f"{field.description}{_choices(field.annotation)}",
            )
        )
    return listed


def _value(settings: Settings, name: str) -> str:
    value = getattr(settings, name)
    return "set" if name in SECRET and value else _shown(value)


def _choices(annotation: object) -> str:
    return f" One of: {', '.join(map(str, get_args(annotation)))}." if get_origin(annotation) is Literal else ""


def _shown(value: object) -> str:
    if value is None:
        return "unset"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(map(str, value)) or "none"
    return str(value)
