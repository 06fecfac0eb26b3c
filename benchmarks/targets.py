"""What is measured: Keepless and its peers, each as a command that serves one port in front of the mock upstream.

Holds: `Target`, `TARGETS`. Leaves out: installing them (the script `peers`), running them (running). Every proxy checks
one API key (TensorZero's embedded gateway has none), logs no content, and uses one thread where that can be chosen: the
core it is pinned to is all it gets.
"""

import json
import sys
import tomllib
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["KEY", "TARGETS", "Place", "Target", "body"]

HERE = Path(__file__).parent
OUT = HERE / "out"
KEY = "sk-bench-0123456789abcdef"
MODEL = "mock-model"
_HIGH = 1_000_000_000  # limits that are counted and never met

_TEXT = (
    "Explain in one paragraph why the tide comes twice a day, for somebody who has never seen the sea. Say what the "
    "moon does, what the sun does, why the two tides of a day differ in height, and where on the coast one would best "
    "watch it. Leave the mathematics out, and end with the one sentence that the reader should remember tomorrow."
)


@dataclass(frozen=True)
class Place:
    """Where a target runs: a folder of its own, its port, the port of the mock and of the mock with long streams."""

    folder: Path
    port: int
    mock: int
    long: int


@dataclass
class Target:
    """One proxy. `write` puts its configuration into its folder and gives the command."""

    name: str
    write: Callable[[Place], list[str]]
    path: str = "/v1/chat/completions"
    model: str = MODEL
    key: str = KEY
    announced: Callable[[str, Place, "Target"], int] | None = None  # reads what it prints for its key and port
    patience_s: float = 60.0
    note: str = ""


def body(model: str, *, stream: bool, pace_us: int = 0) -> bytes:
    """A chat request of about 600 bytes. `pace_us`: between two events of the mock."""
    asked: dict[str, object] = {
        "model": model,
        "messages": [
            {"role": "system", "content": "You are a patient teacher."},
            {"role": "user", "content": _TEXT},
        ],
        "temperature": 0.7,
        "max_tokens": 256,
    }
    if stream:
        asked |= {"stream": True, "stream_options": {"include_usage": True}}
    if pace_us:
        asked["seed"] = pace_us
    return json.dumps(asked, separators=(",", ":")).encode()


def _keepless(place: Place) -> list[str]:
    config = "\n".join(
        f'[[models]]\nid = "{name}"\nengine = "openai"\nretention = "zero"\n'
        f'base_url = "http://127.0.0.1:{port}/v1"\nupstream_model = "{MODEL}"\n'
        for name, port in ((MODEL, place.mock), ("long-model", place.long))
    )
    settings = f'data_dir = "{place.folder}/data"\nport = {place.port}\n{config}'
    tomllib.loads(settings)
    path = place.folder / "keepless.toml"
    path.write_text(settings)
    return [sys.executable, "-m", "keepless", "serve", "--json", "--config", str(path)]


def _keepless_limited(said: str, place: Place, target: Target) -> int:
    """Take the keys it printed, and set limits for the organization and the project: all of them, very high."""
    told = json.loads(said)
    target.key = told["api_key"]
    limits = {"requests_per_minute": _HIGH, "requests_per_day": _HIGH, "tokens_per_minute": _HIGH}
    for key, where in (
        (told["operator_key"], f"/organization/limits?organization_id={told['organization_id']}"),
        (told["admin_key"], f"/organization/projects/{told['project_id']}/limits"),
    ):
        request = urllib.request.Request(
            told["url"] + "/v1" + where,
            json.dumps(limits).encode(),
            {"authorization": f"Bearer {key}", "content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            answer.read()
    return place.port


def _nginx(place: Place) -> list[str]:
    path = place.folder / "nginx.conf"
    path.write_text(
        f"""worker_processes 1; daemon off; pid {place.folder}/pid; error_log {place.folder}/errors error;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 300s; client_max_body_size 20m;
  client_body_temp_path {place.folder}/body; proxy_temp_path {place.folder}/proxy;
  fastcgi_temp_path {place.folder}/f; uwsgi_temp_path {place.folder}/u; scgi_temp_path {place.folder}/s;
  upstream mock {{ server 127.0.0.1:{place.mock}; keepalive 256; keepalive_requests 100000000; }}
  map $http_authorization $known {{ default 0; "Bearer {KEY}" 1; }}
  server {{
    listen 127.0.0.1:{place.port};
    location / {{
      if ($known = 0) {{ return 401; }}
      proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Authorization "";
      proxy_buffering off; proxy_pass http://mock;
    }}
  }}
}}
"""
    )
    return ["nginx", "-p", str(place.folder), "-c", str(path), "-e", str(place.folder / "errors")]


def _haproxy(place: Place) -> list[str]:
    path = place.folder / "haproxy.cfg"
    path.write_text(
        f"""global
  nbthread 1
  maxconn 4096
defaults
  mode http
  option http-no-delay
  timeout connect 5s
  timeout client 300s
  timeout server 300s
frontend front
  bind 127.0.0.1:{place.port}
  acl known hdr(authorization) "Bearer {KEY}"
  http-request deny deny_status 401 unless known
  http-request del-header Authorization
  default_backend mock
backend mock
  http-reuse always
  server one 127.0.0.1:{place.mock} pool-max-conn 512
"""
    )
    return ["haproxy", "-db", "-f", str(path)]


def _envoy(place: Place) -> list[str]:
    at = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": place.port}}}
    upstream = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": place.mock}}}
    known = {"name": "authorization", "string_match": {"exact": f"Bearer {KEY}"}}
    many = {"max_connections": 4096, "max_pending_requests": 4096, "max_requests": 4096}
    filters = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{filters}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "generate_request_id": False,
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [
                        {
                            "match": {"prefix": "/", "headers": [known]},
                            "route": {"cluster": "mock", "timeout": "0s"},
                            "request_headers_to_remove": ["authorization"],
                        },
                        {"match": {"prefix": "/"}, "direct_response": {"status": 401}},
                    ],
                }
            ]
        },
        "http_filters": [
            {"name": "router", "typed_config": {"@type": f"{filters}.http.router.v3.Router"}},
        ],
    }
    listener = at | {
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ]
    }
    cluster = {
        "name": "mock",
        "type": "STATIC",
        "connect_timeout": "1s",
        "circuit_breakers": {"thresholds": [many]},
        "load_assignment": {"cluster_name": "mock", "endpoints": [{"lb_endpoints": [{"endpoint": upstream}]}]},
    }
    path = place.folder / "envoy.json"
    path.write_text(json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}}))
    return [_peer("envoy", "envoy"), "-c", str(path), "--concurrency", "1", "-l", "off", "--use-dynamic-base-id"]


def _sglang(place: Place) -> list[str]:
    return [
        *(_peer("sglang", "python"), "-m", "sglang_router.launch_router", "--backend", "openai"),
        *("--worker-urls", f"http://127.0.0.1:{place.mock}", "--host", "127.0.0.1", "--port", str(place.port)),
        *("--api-key", KEY, "--log-level", "error", "--prometheus-port", str(place.port + 50)),
        *("--prometheus-host", "127.0.0.1", "--max-concurrent-requests", "4096", "--queue-size", "4096"),
    ]


def _vllm(place: Place) -> list[str]:
    return [
        *(_peer("vllm", "vllm-router"), "--worker-urls", f"http://127.0.0.1:{place.mock}", "--policy", "round_robin"),
        *("--host", "127.0.0.1", "--port", str(place.port), "--prometheus-port", str(place.port + 50)),
        *("--max-concurrent-requests", "4096", "--queue-size", "4096", "--log-level", "error"),
    ]


def _tensorzero(place: Place) -> list[str]:
    path = place.folder / "tensorzero.toml"
    path.write_text(
        f"""[gateway]
observability.enabled = false
[models.{MODEL}]
routing = ["mock"]
[models.{MODEL}.providers.mock]
type = "openai"
model_name = "{MODEL}"
api_base = "http://127.0.0.1:{place.mock}/v1"
api_key_location = "none"
"""
    )
    start = place.folder / "start.py"
    start.write_text(
        "import json, sys, time\nfrom tensorzero import _start_http_gateway as start\n"
        "none = dict(clickhouse_url=None, postgres_url=None, valkey_url=None)\n"
        "gateway = start(config_file=sys.argv[1], async_setup=False, **none)\n"
        "print(json.dumps({'url': gateway.base_url}), flush=True)\ntime.sleep(1e9)\n"
    )
    return [_peer("tensorzero", "python"), str(start), str(path)]


def _tensorzero_port(said: str, place: Place, target: Target) -> int:
    del place, target
    return int(json.loads(said)["url"].split(":")[2].split("/")[0])


def _litellm(place: Place) -> list[str]:
    path = place.folder / "litellm.json"
    one = {"model": f"openai/{MODEL}", "api_base": f"http://127.0.0.1:{place.mock}/v1", "api_key": "none"}
    config = {
        "model_list": [{"model_name": MODEL, "litellm_params": one}],
        "litellm_settings": {"num_retries": 0, "request_timeout": 60, "turn_off_message_logging": True},
        "general_settings": {"master_key": KEY},
    }
    path.write_text(json.dumps(config))
    return [_peer("litellm", "litellm"), "--config", str(path), "--host", "127.0.0.1", "--port", str(place.port)]


def _peer(name: str, program: str) -> str:
    return str(OUT / "peers" / name / "bin" / program)


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("keepless", _keepless, announced=_keepless_limited, note="key, policy, limits and metering on"),
        Target("nginx", _nginx, note="proxy_pass, one worker"),
        Target("haproxy", _haproxy, note="one thread"),
        Target("envoy", _envoy, note="one worker thread"),
        Target("sglang", _sglang, note="SGLang model gateway, backend openai"),
        Target("vllm", _vllm, note="vllm-router, no key check"),
        Target(
            "tensorzero",
            _tensorzero,
            path="/openai/v1/chat/completions",
            model=f"tensorzero::model_name::{MODEL}",
            announced=_tensorzero_port,
            note="embedded gateway of its wheel, no key check",
        ),
        Target("litellm", _litellm, patience_s=180.0, note="one worker, without its spend database"),
    )
}
