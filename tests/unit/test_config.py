"""Settings: where they come from, and clear words for wrong ones."""

import re
from pathlib import Path

import pytest

from keepless.config import Engine, UpstreamRetention, load
from keepless.errors import ConfigError

SEVERAL = '[[models]]\nid = "x"\nengine = "openai"\n'
UPSTREAM = '[[models.upstreams]]\nbase_url = "http://x"\n'


def test_defaults_serve_the_embedded_model(tmp_path: Path) -> None:
    settings = load(environ={}, data_dir=str(tmp_path))
    assert [m.id for m in settings.models] == ["smollm2-135m-instruct", "whisper-base", "flite", "all-minilm-l6-v2"]
    assert settings.models[0].retention is UpstreamRetention.ZERO
    assert settings.database == f"sqlite:///{tmp_path}/keepless.sqlite"
    assert settings.blobs == f"file://{tmp_path}/blobs" and settings.keyring == f"file://{tmp_path}/keyring"


def test_the_order_is_file_environment_command_line(tmp_path: Path) -> None:
    file = tmp_path / "keepless.toml"
    file.write_text('host = "::1"\nport = 1\nworkers = 3\n')
    settings = load(file, {"KEEPLESS_PORT": "2", "KEEPLESS_WORKERS": "2"}, workers=1)
    assert (settings.host, settings.port, settings.workers) == ("::1", 2, 1)


@pytest.mark.parametrize(
    "name", ["KEEPLESS_DATABSE_URL", "KEEPLESS_USAGE_DAY", "KEEPLESS_LIMITS", "KEEPLESS_OIDC", "KEEPLESS_Port1"]
)
def test_a_misspelt_variable_is_refused_by_its_name_alone(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(environ={name: "MARKER", "KEEPLESS_PORT": "2"}, data_dir=str(tmp_path))
    assert name in str(caught.value)
    assert "MARKER" not in str(caught.value)
    assert "KEEPLESS_PORT" not in str(caught.value)


def test_variables_of_others_are_no_settings(tmp_path: Path) -> None:
    """The client's, those that a model or the sign-in names, Kubernetes' for a service of this name, and more."""
    file = tmp_path / "keepless.toml"
    file.write_text(
        f'{SEVERAL}base_url = "http://x"\napi_key_env = "KEEPLESS_FIRST"\n'
        f'{SEVERAL.replace("x", "y")}{UPSTREAM}api_key_env = "KEEPLESS_SECOND"\n'
        '[oidc]\nissuer = "https://x"\nclient_id = "x"\nclient_secret_env = "KEEPLESS_THIRD"\nbase_url = "https://x"\n'
        '[[oidc.groups]]\ngroup = "x"\nrole = "owner"\n'
    )
    others = ["FIRST", "SECOND", "THIRD", "API_KEY", "ADMIN_KEY", "BASE_URL", "SERVICE_HOST", "SERVICE_PORT"]
    others += ["SERVICE_PORT_HTTP", "PORT_8000_TCP", "PORT_8000_TCP_ADDR", "CHECKOUT", "MODEL", "TEST_DATABASE_URL", ""]
    environ = {f"KEEPLESS_{name}": "MARKER" for name in others} | {"PATH": "x", "NOT_KEEPLESS_X": "x"}
    assert load(file, environ).port == 8000


def test_models_as_in_the_contract(tmp_path: Path) -> None:
    file = tmp_path / "keepless.toml"
    file.write_text(
        '[[models]]\nid = "a"\n'
        '[[models]]\nid = "b"\nengine = "openai"\nbase_url = "http://127.0.0.1:1/v1"\nregion = "us"\n'
    )
    a, b = load(file, {}).models
    assert (a.engine, b.engine, b.retention, b.region) == (
        Engine.LLAMA,
        Engine.OPENAI,
        UpstreamRetention.UNKNOWN,
        "us",
    )


def test_several_upstreams_inherit_patience_and_no_promise(tmp_path: Path) -> None:
    file = tmp_path / "keepless.toml"
    file.write_text(
        f'{SEVERAL}idle_timeout = 9\nmax_connections = 5\n{UPSTREAM}retention = "zero"\n{UPSTREAM}idle_timeout = 1\n'
    )
    (model,) = load(file, {}).models
    first, second = model.all_upstreams()
    assert (first.idle_timeout, second.idle_timeout, second.max_connections) == (9, 1, 5)
    assert (first.retention, second.retention, second.region) == (
        UpstreamRetention.ZERO,
        UpstreamRetention.UNKNOWN,
        None,
    )


def test_the_examples_of_the_how_to_are_settings(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs/howto/operate.md").read_text()
    blocks = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 2
    for number, block in enumerate(blocks):
        file = tmp_path / f"{number}.toml"
        file.write_text(block)
        assert load(file, {}).models


def test_a_postgres_address_gets_its_driver() -> None:
    assert load(environ={"KEEPLESS_DATABASE_URL": "postgresql://u@h/d"}).database == "postgresql+psycopg://u@h/d"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("port = 70000", "port"),
        ("port = 'x'", "port"),
        ("made_up = 1", "made_up"),
        ("[limits]\nbody_bytes = 0", "limits.body_bytes"),
        ('[[models]]\nid = "x"\nengine = "magic"', "engine"),
        ('[[models]]\nid = "x"\nengine = "openai"', "base_url"),
        ('[[models]]\nid = "x"\n[[models.upstreams]]\nbase_url = "http://x"', "engine openai only"),
        (f'{SEVERAL}retention = "zero"\n{UPSTREAM}', r"models\[x\].retention belongs"),
        (f'{SEVERAL}base_url = "http://x"\n{UPSTREAM}', r"models\[x\].base_url belongs"),
        (f"{SEVERAL}{UPSTREAM}weight = 0", "weight"),
        (f'{SEVERAL}{UPSTREAM}health_path = "health"', "health_path"),
        (f"{SEVERAL}[[models.upstreams]]\nweight = 1", "base_url"),
        ('[[models]]\nid = "has space"', "id"),
        ('[[models]]\nid = "x"\n[[models]]\nid = "x"', "same id"),
        ('[[models]]\nid = "x"\nretention = "none"', "retention"),
        ('[[transfers]]\nrecipient = "x"\ncountry = "US"\nmechanism = "scc"', "scc_module"),
        ('[[transfers]]\nrecipient = "x"\ncountry = "US"\nmechanism = "bcr"\nscc_module = 1', "scc_module"),
        ('[[transfers]]\nrecipient = "x"\ncountry = "usa"\nmechanism = "bcr"', "country"),
        ("host = '0.0.0.0'", "behind-proxy"),
        ("= broken", "TOML"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "keepless.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=says):
        load(file, {})


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "none.toml", {})


def test_not_loopback_needs_tls_or_a_proxy() -> None:
    assert load(environ={}, host="0.0.0.0", behind_proxy=True).behind_proxy
