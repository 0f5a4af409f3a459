"""Finds the endpoint of a job: preset, URL, model, key.

A provider that is named in a stronger layer (the command line) does not take the URL, key file and headers of a weaker
one (the job file). So ``--provider simulator`` rehearses any job, and no key goes to a host it was not meant for.
Where neither a provider nor a URL is named, ``OPENAI_BASE_URL`` and ``OPENAI_API_KEY`` mean what they mean to the SDK;
a preset has its own key variable.
"""

import logging
import os
import re
import shlex
import stat
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from batchllm import presets
from batchllm.errors import UsageError
from batchllm.job.layers import Given, flag_layer
from batchllm.job.url import host_of, is_local, is_loopback, normalise
from batchllm.presets import Preset
from batchllm.records import Endpoint

log = logging.getLogger("batchllm.job")

API_KEY = "api_key="
"""The source of a key that a program gives."""

_MAX_KEY_FILE_BYTES = 65_536
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OWN_HEADERS = frozenset(
    {"host", "content-type", "content-length", "accept-encoding", "transfer-encoding", "connection"}
)


@dataclass(frozen=True, slots=True)
class Place:
    """Preset and URL, and whether the preset was found by the URL."""

    preset: Preset
    base_url: str
    by_url: bool


def endpoint(
    given: Given,
    environ: Mapping[str, str],
    *,
    template_model: Any,
    needs_key: bool,
    api_key: str | None = None,
) -> Endpoint:
    """Returns the endpoint of a job.

    Args:
        given: Flags, environment, job file.
        environ: The environment, for the variables of the SDK and of vendors.
        template_model: The template's ``model`` parameter, where it is a plain name.
        needs_key: Refuse an endpoint without the key that it needs.
        api_key: The key itself, of a program; it goes before every other.

    Raises:
        UsageError: Something is missing or wrong; the message says what to do.
    """
    place = _place(given, environ, needs_key and api_key is None)
    preset, url = place.preset, place.base_url
    allow_http = given.get("allow_http")
    _check_transport(url, given, allow_http)
    given.sources.setdefault("provider", "its URL" if place.by_url else "default")
    given.sources.setdefault("base_url", f"preset {preset.name}")
    key: str | None
    key_source: str | None
    if api_key is not None and not place.preset.free:
        key, key_source = _checked_key(api_key, API_KEY), API_KEY
    else:
        key, key_source = _key(given, environ, place, needs_key)
    if key_source:
        given.sources.setdefault("api_key_file", key_source if key_source == API_KEY else "environment")
    return Endpoint(
        preset=preset.name,
        base_url=url,
        model=_model(given, environ, preset, template_model),
        api_key=key,
        key_source=key_source,
        organization=environ.get("OPENAI_ORG_ID") or None if preset.organizations else None,
        project=environ.get("OPENAI_PROJECT_ID") or None if preset.organizations else None,
        headers=_headers(given),
        azure_api_version=_azure_api_version(preset, url, environ),
        charge=preset.charge,
        allow_http=allow_http,
    )


def reconnect(kept: Endpoint, environ: Mapping[str, str], *, api_key_file: Path | None = None) -> Endpoint:
    """Returns a saved endpoint with its key.

    Args:
        kept: The endpoint as the journal keeps it, without the key.
        environ: The environment.
        api_key_file: File with the key, instead of the environment.

    Raises:
        UsageError: There is no key.
    """
    by_url = presets.for_base_url(kept.base_url)
    named = kept.preset not in (presets.CUSTOM, by_url.name if by_url else None)
    flags = {
        "provider": kept.preset if named else None,
        "base_url": kept.base_url or None,
        "api_key_file": None if api_key_file is None else str(api_key_file),
        "model": kept.model or None,
    }
    return endpoint(Given((flag_layer(flags),)), environ, template_model=None, needs_key=True)


def with_key(endpoint: Endpoint, environ: Mapping[str, str], api_key: str | None = None) -> Endpoint:
    """Returns an endpoint with its key again, which no copy of it in another process has.

    Raises:
        UsageError: The key is not where it was; the message says where that was.
    """
    if api_key is not None:
        return replace(endpoint, api_key=_checked_key(api_key, API_KEY), key_source=API_KEY)
    source = endpoint.key_source
    if endpoint.api_key is not None or source is None:
        return endpoint
    if source == API_KEY:
        raise UsageError("the job was made with api_key=, which is not kept with it: run(job, api_key=…)")
    if key := environ.get(source, "").strip():
        return replace(endpoint, api_key=_checked_key(key, source))
    if not Path(source).exists():
        raise UsageError(
            f"the key of the job came from {source}, which is not there: set it, or run(job, api_key=…)"
        )
    return replace(endpoint, api_key=_checked_key(_key_in(Path(source), "the key file"), source))


def _place(given: Given, environ: Mapping[str, str], needs_key: bool) -> Place:
    named = given.has("provider")
    provider = _only(given, "provider")
    if given.has("base_url") and (not named or given.rank("base_url") <= given.rank("provider")):
        called = given.called("base_url")
        url = normalise(_only(given, "base_url"), called)
        by_host = presets.for_base_url(url)
        if not named:
            return _at(by_host or presets.load(presets.CUSTOM), url, by_url=True)
        preset = presets.load(provider)
        if given.rank("base_url") < given.rank("provider"):
            preset = by_host or (presets.load(presets.CUSTOM) if preset.free else preset)
        if preset.free and not is_local(host_of(url)):
            raise UsageError(f"{called} {url} is not the simulator: remove --provider {provider}, or the URL")
        return _at(preset, url)
    if named:
        preset = presets.load(provider)
        return _at(preset, _own_url(preset, given, environ))
    if url := environ.get("OPENAI_BASE_URL", "").strip():
        given.sources["base_url"] = "OPENAI_BASE_URL"
        url = normalise(url, "OPENAI_BASE_URL")
        return _at(presets.for_base_url(url) or presets.load(presets.CUSTOM), url, by_url=True)
    if needs_key and not environ.get("OPENAI_API_KEY", "").strip() and not given.get("api_key_file"):
        raise UsageError(_nothing_named(environ))
    return _at(presets.load("openai"), presets.load("openai").base_url)


def _only(given: Given, name: str) -> Any:
    """The value of an option that may be given several times, once it is known to be one; ``None`` without one."""
    found = given.get(name)
    assert found is None or len(found) == 1, "several endpoints are looked at one by one"
    return found[0] if found else None


def _own_url(preset: Preset, given: Given, environ: Mapping[str, str]) -> str:
    if preset.base_url_variable:
        url = environ.get(preset.base_url_variable, "").strip()
        if not url:
            raise UsageError(
                f"--provider {preset.name} needs its URL: set {preset.base_url_variable}, or give --base-url "
                f"(see {preset.docs})"
            )
        given.sources["base_url"] = preset.base_url_variable
        return normalise(url, preset.base_url_variable)
    if not preset.base_url and not preset.free:
        raise UsageError(f"--provider {preset.name} needs --base-url URL")
    return preset.base_url


def _at(preset: Preset, url: str, *, by_url: bool = False) -> Place:
    """A place; the path of Azure's deployments is added to its URL."""
    if preset.azure_api_version:
        if "/deployments" in url:
            raise UsageError(
                f"{url} names a deployment: give the resource alone ({url.partition('/openai')[0]}), "
                "and the deployment as --model"
            )
        url = presets.azure_root(url)
    return Place(preset, url, by_url)


def _azure_api_version(preset: Preset, url: str, environ: Mapping[str, str]) -> str | None:
    """The API version of Azure's older URL layout; the newer one, below ``/openai/v1``, has none."""
    if preset.azure_api_version is None or url.endswith("/v1"):
        return None
    return environ.get("OPENAI_API_VERSION", "").strip() or preset.azure_api_version


def _nothing_named(environ: Mapping[str, str]) -> str:
    loaded = [presets.load(name) for name in presets.names()]
    found = next((one for one in loaded if one.key_variable and environ.get(one.key_variable)), None)
    hint = f"; {found.key_variable} is set, so perhaps --provider {found.name}" if found else ""
    return (
        "there is no key and no endpoint: set OPENAI_API_KEY (export OPENAI_API_KEY=...), or name another endpoint "
        f"with --provider or --base-url{hint}; to rehearse without any, add --provider simulator"
    )


def _check_transport(url: str, given: Given, allow_http: bool) -> None:
    if url.startswith("http://") and not allow_http and not is_local(host_of(url)):
        raise UsageError(
            f"{given.sources['base_url']} {url} would send key and texts unencrypted: use https://, or add --allow-http"
        )


def _model(given: Given, environ: Mapping[str, str], preset: Preset, template_model: Any) -> str:
    """Flag, environment, job file, template, ``OPENAI_MODEL``, preset; empty leaves it to ``/models``."""
    if named := given.get("model"):
        return str(named)
    if isinstance(template_model, str):
        given.sources["model"] = "template"
        return template_model
    if model := environ.get("OPENAI_MODEL", "").strip():
        given.sources["model"] = "OPENAI_MODEL"
        return model
    if preset.model_required:
        raise UsageError(f"--provider {preset.name} needs --model: {preset.model_required}")
    given.sources["model"] = f"preset {preset.name}" if preset.default_model else "/models"
    return preset.default_model


def _key(
    given: Given, environ: Mapping[str, str], place: Place, needs_key: bool
) -> tuple[str | None, str | None]:
    """The key, and the variable or file that it comes from."""
    preset = place.preset
    if preset.free:
        return None, None
    foreign = _foreign_file(given, environ, place)
    kept_back = foreign is not None and given.is_of_environment("api_key_file")
    if given.has("api_key_file") and given.rank("api_key_file") <= given.rank("provider") and not kept_back:
        path: Path = given.get("api_key_file")
        return _checked_key(_key_in(path, given.called("api_key_file")), str(path)), str(path)
    own = ["OPENAI_API_KEY"] if place.by_url and preset.needs_key else []
    for variable in filter(None, [preset.key_variable, *own] if foreign is None else []):
        if key := environ.get(variable, "").strip():
            return _checked_key(key, variable), variable
    if needs_key and preset.needs_key and not is_loopback(host_of(place.base_url)):
        if foreign is not None:
            word = f"add --base-url {place.base_url}, or name a key for it with --api-key-file FILE"
            if given.called("base_url").startswith("base_url of endpoint"):
                word = "name the file of its key there, as api_key_file, or name every URL with --base-url instead"
            raise UsageError(
                f"{foreign} names the URL {place.base_url}, and no key of the environment goes there without your "
                f"word: {word}"
            )
        raise UsageError(
            f"there is no key for {place.base_url}: set {preset.key_variable}, or give --api-key-file FILE; "
            "to rehearse without one, add --provider simulator"
        )
    return None, None


def _foreign_file(given: Given, environ: Mapping[str, str], place: Place) -> Path | None:
    """The job file that alone names the URL, where that is not the vendor's own; ``None`` where the user names it.

    A job file may come from somebody else, and its URL is where the key would go.
    """
    rank = given.rank("base_url")
    if rank >= len(given.layers) or given.rank("provider") < rank:
        return None
    file = given.layers[rank].file
    vendor = presets.for_base_url(place.base_url)
    named = environ.get("OPENAI_BASE_URL", "").strip()
    if file is None or (vendor is not None and vendor.name == place.preset.name):
        return None
    return None if named and normalise(named, "OPENAI_BASE_URL") == place.base_url else file


def _key_in(path: Path, called: str) -> str:
    try:
        with path.open("rb") as file:
            if _is_needlessly_open(file.fileno()):
                log.warning(
                    "%s %s: others may read it; run chmod 600 %s", called, path, shlex.quote(str(path))
                )
            content = file.read(_MAX_KEY_FILE_BYTES)
        key = content.decode().strip()
    except OSError as error:
        raise UsageError(f"{called} {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{called} {path}: this is not text") from None
    if not key:
        raise UsageError(f"{called} {path}: the file is empty")
    return key


def _is_needlessly_open(descriptor: int) -> bool:
    """Whether others may read a file that its user could close to them; a mounted secret is not theirs to change."""
    found = os.fstat(descriptor)
    others = stat.S_ISREG(found.st_mode) and found.st_mode & (stat.S_IRGRP | stat.S_IROTH)
    read_only = os.fstatvfs(descriptor).f_flag & os.ST_RDONLY
    return bool(others) and not read_only and os.geteuid() in (0, found.st_uid)


def _checked_key(key: str, source: str) -> str:
    """Refuses a key that cannot be a header; the message never shows it."""
    if not all("!" <= sign <= "~" for sign in key):
        raise UsageError(
            f"the key of {source} holds a space, line break or other character that no key has; set it again"
        )
    return key


def _headers(given: Given) -> dict[str, str]:
    """The further headers of the layers that are not weaker than the provider's."""
    reach = max(given.rank("provider") + 1, 1)
    headers = Given(given.layers[:reach], given.sources).merged("header")
    for name, value in headers.items():
        called = given.called("header")
        if name.lower() in (*presets.key_headers(), "proxy-authorization"):
            provider = presets.key_headers().get(name.lower())
            hint = f"; --provider {provider} sends it in this header" if provider else ""
            raise UsageError(
                f"{called} {name}: a key comes from the environment or --api-key-file, never from here{hint}"
            )
        if name.lower() in _OWN_HEADERS or not _TOKEN.fullmatch(name):
            raise UsageError(f"{called} {name}: this cannot be set")
        if not all(sign == "\t" or " " <= sign <= "~" for sign in value):
            raise UsageError(
                f"{called} {name}: its value holds a line break or a character that no header may have"
            )
    return headers
