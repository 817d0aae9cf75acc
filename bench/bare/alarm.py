"""Nothing but the request that an alarm asks for; with COOL_DOWN_SECONDS, after one write to the table."""

import os
import time
from typing import Any

import boto3
import requests

_URL = f"{os.environ['CLOUD_BACKUP_URL']}/v2/110011/agents"
_session = requests.Session()
_table = boto3.client("dynamodb") if int(os.environ["COOL_DOWN_SECONDS"]) else None


def lambda_handler(event: Any, context: object) -> None:
    """Ask the one agent of an alarm's first metric."""
    metric = event["detail"]["configuration"]["metrics"][0]["metricStat"]["metric"]
    agent_id = metric["dimensions"]["AgentId"]
    if _table:
        _remember(agent_id)
    _session.post(f"{_URL}/{agent_id}/logfiles", headers={"X-Auth-Token": "a-token"}, timeout=10).raise_for_status()


def _remember(agent_id: str) -> None:
    """Write what marks an agent as asked, unless somebody else has."""
    now = int(time.time())
    _table.put_item(  # type: ignore[union-attr]
        TableName=os.environ["RECENT_CAPTURES_TABLE"],
        Item={"id": {"S": agent_id}, "expiration": {"N": str(now + 600)}, "status": {"S": "INPROGRESS"}},
        ConditionExpression="attribute_not_exists(#id) OR #expiration < :now",
        ExpressionAttributeNames={"#id": "id", "#expiration": "expiration"},
        ExpressionAttributeValues={":now": {"N": str(now)}},
    )
