"""An empty handler with the packages and clients of the capture function: the least that its cold start can take."""

import boto3
import requests
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.utilities import parameters

_session = boto3.session.Session()
_clients = [_session.client(service) for service in ("secretsmanager", "sqs", "sns", "dynamodb")]
_used = requests.Session(), Logger(), Metrics(), parameters.SecretsProvider(boto3_client=_clients[0])


def lambda_handler(event: object, context: object) -> None:
    """Do nothing."""
