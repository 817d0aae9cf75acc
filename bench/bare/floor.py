"""An empty handler with the packages and clients of the capture function: the least that its cold start can take.

The certificates are part of the API's client, as a handler needs them before its first request.
"""

import ssl

import boto3
import certifi
import requests
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.utilities import parameters

_session = boto3.session.Session()
_clients = [_session.client(service) for service in ("secretsmanager", "sqs", "sns", "dynamodb")]
_api = requests.Session(), ssl.create_default_context(cafile=certifi.where())
_powertools = Logger(), Metrics(), parameters.SecretsProvider(boto3_client=_clients[0])


def lambda_handler(event: object, context: object) -> None:
    """Do nothing."""
