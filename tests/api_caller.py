"""A client of the fake API for its own tests: a token, no redirects, one reused connection."""

import json

import requests

AGENT = "8f135b4f-7a69-4b8a-947f-5e80d772fd97"


class Caller:
    def __init__(self, api, session):
        self.base = f"{api.url}/v2/110011"
        self.headers = {
            "X-Auth-Token": api.issue_token(lives_seconds=1_000_000),
            "Content-Type": "application/json",
        }
        self.session = session

    def __call__(self, method, path, **options):
        options = {"headers": self.headers, "timeout": 10, "allow_redirects": False} | options
        return self.session.request(method, self.base + path, **options)

    def request_log_file(self, agent_id=AGENT, **options):
        return self("POST", f"/agents/{agent_id}/logfiles", **options)

    def log_file(self, log_file_id):
        return self("GET", f"/agents/{AGENT}/logfiles/{log_file_id}")

    def status(self):
        return self("GET", f"/agents/{AGENT}/status").json()


def authenticate(api, username="someone", api_key="right", body=None):
    credentials = {"username": username, "apiKey": api_key}
    body = json.dumps({"auth": {"RAX-KSKEY:apiKeyCredentials": credentials}}) if body is None else body
    return requests.post(f"{api.url}/v2.0/tokens", data=body, timeout=10)
