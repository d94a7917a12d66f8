"""Run the same users under Locust's own command line and web UI, against any server:

    locust -f harness/load/locustfile.py --host http://127.0.0.1:8000 --model NAME

The web UI listens only on 127.0.0.1. --engine (default: openai) decides which API is used, and which variable
has the key (OPENAI_API_KEY). --rows records each request.
"""

import logging
import os
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import msgspec
from locust import events

from serving_bench.engines import ENGINES
from serving_bench.harness.contracts import Load, LoadJob
from serving_bench.harness.errors import UserError
from serving_bench.harness.load.answer import APIS
from serving_bench.harness.load.client.http import endpoint
from serving_bench.harness.load.client.receive import Receiver
from serving_bench.harness.load.play.traffic import Traffic
from serving_bench.harness.load.play.users import ConversationUser
from serving_bench.scenarios import SCENARIOS


class ChatUser(ConversationUser):
    """The user that a test's start fills in, with a fresh Traffic for each test."""

    lifetime = ExitStack()


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def add_arguments(parser: Any) -> None:
    """Add bench's own arguments. The web UI's form has them, too, except for the file name.

    Whoever reaches the web UI can send load anywhere with the key. So it listens on 127.0.0.1, where Locust's
    own default is all addresses, unless --web-host names another.
    """
    parser.set_defaults(web_host="127.0.0.1")
    parser.add_argument("--model", default="default", help="the model's name at the server")
    parser.add_argument(
        "--scenario", default="chat_multi_turn", choices=sorted(SCENARIOS), help="what users say"
    )
    parser.add_argument("--scenario-options", default="{}", help='as JSON: {"turns": 3}')
    parser.add_argument("--scenario-seed", type=int, default=0, help="the same seed, the same conversations")
    parser.add_argument(
        "--engine", default="openai", choices=sorted(ENGINES), help="whose request fields to send"
    )
    parser.add_argument("--rows", default="", include_in_web_ui=False, help="append a JSON line per request")


@events.test_start.add_listener  # type: ignore[untyped-decorator]
def open_traffic(environment: Any, **_: Any) -> None:
    """Start with the first conversation, or end Locust: it only prints what a listener raises."""
    try:
        _open(environment)
    except (UserError, ValueError, RecursionError, OSError) as error:
        logging.getLogger(__name__).error("%s", error)
        environment.process_exit_code = 2
        if environment.parsed_options.headless:
            raise SystemExit(2) from error
        environment.runner.quit()


@events.test_stop.add_listener  # type: ignore[untyped-decorator]
def close_traffic(environment: Any, **_: Any) -> None:
    traffic = getattr(ChatUser, "traffic", None)
    if traffic is not None and traffic.failure:
        environment.process_exit_code = 1
    ChatUser.lifetime.close()


def _open(environment: Any) -> None:
    options = environment.parsed_options
    host = environment.host or ""
    engine = ENGINES[options.engine]
    api = APIS[engine.api]
    base_url = host if urlsplit(host).path.strip("/") else host.rstrip("/") + (api.version or "/v1")
    scenario = SCENARIOS[options.scenario]
    given = msgspec.json.decode(options.scenario_options, type=dict[str, Any])
    adapters = msgspec.convert(given, scenario.options).lora
    job = LoadJob(
        cell="locust",
        base_url=base_url,
        model=options.model,
        api_key_env=engine.key_env,
        engine=options.engine,
        scenario=options.scenario,
        scenario_options=given,
        load=Load(1, warmup_s=0.0),
        # Locust's worker processes play different conversations.
        seed=options.scenario_seed + getattr(environment.runner, "worker_index", 0),
        directory="",  # no file of the job's is written
        adapters=tuple(each.name for each in adapters),
    )
    ChatUser.endpoint = endpoint(base_url, os.environ.get(engine.key_env), api, options.model)
    ChatUser.receiver = ChatUser.lifetime.enter_context(Receiver())
    rows = open(options.rows or os.devnull, "ab", buffering=0)  # noqa: SIM115 - lifetime closes it
    begun = open(os.devnull, "wb")  # noqa: SIM115
    for file in (rows, begun):
        ChatUser.lifetime.push(file)
    ChatUser.traffic = traffic = Traffic(job, scenario, engine, begun=begun, rows=rows)
    ChatUser.lifetime.callback(traffic.alarm.close)
