"""Nothing but the requests: what a bulk takes at least, with `requests` and as many threads."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests
from requests.adapters import HTTPAdapter

_WORKERS = int(os.environ["CONCURRENCY"])
_URL = f"{os.environ['CLOUD_BACKUP_URL']}/v2/110011/agents"
_session = requests.Session()
_session.mount("http://", HTTPAdapter(pool_connections=_WORKERS, pool_maxsize=_WORKERS))


def lambda_handler(event: Any, context: object) -> None:
    """Send one request for each agent that the records of a queue name."""
    agent_ids = [agent_id for record in event["Records"] for agent_id in json.loads(record["body"])["agent_ids"]]
    with ThreadPoolExecutor(_WORKERS) as pool:
        list(pool.map(_ask, agent_ids))


def _ask(agent_id: str) -> None:
    _session.post(f"{_URL}/{agent_id}/logfiles", headers={"X-Auth-Token": "a-token"}, timeout=10).raise_for_status()
