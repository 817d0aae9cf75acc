"""The requests and nothing else: the least that an alarm and many agents take, with `requests`, boto3 and threads."""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
import requests
from requests.adapters import HTTPAdapter

_WORKERS = int(os.environ["CONCURRENCY"])
_URL = f"{os.environ['CLOUD_BACKUP_URL']}/v2/110011/agents"
_session = requests.Session()
_session.mount("http://", HTTPAdapter(pool_connections=_WORKERS, pool_maxsize=_WORKERS))
_table = boto3.client("dynamodb")


def bulk_handler(event: Any, context: object) -> None:
    """Send one request for each agent in the records of a queue."""
    agent_ids = [agent_id for record in event["Records"] for agent_id in json.loads(record["body"])["agent_ids"]]
    with ThreadPoolExecutor(_WORKERS) as pool:
        list(pool.map(_request, agent_ids))


def alarm_handler(event: Any, context: object) -> None:
    """Send the request for the agent in an alarm's first metric, after one conditional write to the table."""
    metric = event["detail"]["configuration"]["metrics"][0]["metricStat"]["metric"]
    agent_id, now = metric["dimensions"]["AgentId"], int(time.time())
    _table.put_item(
        TableName=os.environ["CAPTURES_TABLE"],
        Item={"pk": {"S": f"AGENT#110011#DFW#{agent_id}"}, "sk": {"S": "CLAIM"}, "expires": {"N": str(now + 600)}},
        ConditionExpression="attribute_not_exists(pk) OR expires <= :now",
        ExpressionAttributeValues={":now": {"N": str(now)}},
    )
    _request(agent_id)


def _request(agent_id: str) -> None:
    _session.post(f"{_URL}/{agent_id}/logfiles", headers={"X-Auth-Token": "a-token"}, timeout=10).raise_for_status()
