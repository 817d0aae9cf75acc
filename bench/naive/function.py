"""The function as a first version would be: one agent after the other."""

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
    """Request the log file of every agent in the records of a queue, and publish the API's response."""
    secret = secrets.get_secret_value(SecretId=os.environ["TOKEN_SECRET_ARN"])
    credentials = json.loads(secret["SecretString"])
    for record in event["Records"]:
        for agent_id in json.loads(record["body"])["agent_ids"]:
            publish(agent_id, request(agent_id, credentials))


def request(agent_id, credentials):
    """Return the API's response to the request for an agent's log file."""
    return requests.post(
        f"{os.environ['CLOUD_BACKUP_URL']}/v2/{credentials['project_id']}/agents/{agent_id}/logfiles",
        headers={"X-Auth-Token": credentials["token"]},
        timeout=10,
    )


def publish(agent_id, response):
    """Publish the API's response."""
    notification = {"agent_id": agent_id, "http_status": response.status_code, "response": response.json()}
    sns.publish(TopicArn=os.environ["OUTCOME_TOPIC_ARN"], Message=json.dumps(notification))
    logger.info("requested", agent_id=agent_id, http_status=response.status_code)
