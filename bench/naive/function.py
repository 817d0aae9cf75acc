"""The function as one would write it first: one agent after the other."""

import json
import os

import boto3
import requests
from aws_lambda_powertools import Logger

logger = Logger()
secrets = boto3.client("secretsmanager")
sns = boto3.client("sns")


@logger.inject_lambda_context
def lambda_handler(event, context):
    """Ask every agent that the records of a queue name for its log file, and tell what the API says."""
    secret = secrets.get_secret_value(SecretId=os.environ["TOKEN_SECRET_ARN"])
    credentials = json.loads(secret["SecretString"])
    for record in event["Records"]:
        for agent_id in json.loads(record["body"])["agent_ids"]:
            tell(agent_id, ask(agent_id, credentials))


def ask(agent_id, credentials):
    """Return the API's answer to a request for an agent's log file."""
    return requests.post(
        f"{os.environ['CLOUD_BACKUP_URL']}/v2/{credentials['project_id']}/agents/{agent_id}/logfiles",
        headers={"X-Auth-Token": credentials["token"]},
        timeout=10,
    )


def tell(agent_id, response):
    """Publish what the API has answered."""
    notification = {"agent_id": agent_id, "http_status": response.status_code, "answer": response.json()}
    sns.publish(TopicArn=os.environ["OUTCOME_TOPIC_ARN"], Message=json.dumps(notification))
    logger.info("asked", agent_id=agent_id, http_status=response.status_code)
