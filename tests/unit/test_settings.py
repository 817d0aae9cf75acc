import re

import pytest

from agent_log_capture.settings import RotationSettings, SettingError, Settings

REQUIRED = {
    "TOKEN_SECRET_ARN": "arn:aws:secretsmanager:us-east-1:123456789012:secret:token-AbCdEf",
    "OUTCOME_TOPIC_ARN": "arn:aws:sns:us-east-1:123456789012:outcomes",
    "CAPTURE_QUEUE_URL": "https://sqs.us-east-1.amazonaws.com/123456789012/captures",
    "DEAD_LETTER_QUEUE_URL": "https://sqs.us-east-1.amazonaws.com/123456789012/dead-letters",
    "CAPTURES_TABLE": "captures",
    "CLOUD_BACKUP_REGION": "DFW",
}


def test_what_is_not_set_has_a_default():
    assert Settings.from_environment(REQUIRED) == Settings(
        token_secret_arn=REQUIRED["TOKEN_SECRET_ARN"],
        outcome_topic_arn=REQUIRED["OUTCOME_TOPIC_ARN"],
        capture_queue_url=REQUIRED["CAPTURE_QUEUE_URL"],
        dead_letter_queue_url=REQUIRED["DEAD_LETTER_QUEUE_URL"],
        captures_table="captures",
        cloud_backup_url="https://{region}.backup.api.rackspacecloud.com",
        cloud_backup_region="DFW",
        cloud_backup_project_id=None,
        agent_id_keys=(),
        cool_down_seconds=600,
        retry_window_seconds=86_400,
        capture_deadline_seconds=86_400,
        concurrency=32,
        publish_download_url=True,
        chat_messages=False,
        rotation_enabled=False,
    )


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("CLOUD_BACKUP_URL", "https://backup.example.com:8443/api/", "https://backup.example.com:8443/api"),
        ("CLOUD_BACKUP_URL", "http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("CLOUD_BACKUP_URL", "http://localhost:8000/{region}", "http://localhost:8000/{region}"),
        ("CLOUD_BACKUP_URL", "http://[::1]:80", "http://[::1]:80"),
        ("CLOUD_BACKUP_URL", "HTTP://LOCALHOST:1", "HTTP://LOCALHOST:1"),
        ("CLOUD_BACKUP_URL", "HTTPS://Backup.Example.COM:65535//", "HTTPS://Backup.Example.COM:65535"),
        (
            "CLOUD_BACKUP_URL",
            "https://backup-{region}.example.com/{region}/v",
            "https://backup-{region}.example.com/{region}/v",
        ),
        ("CLOUD_BACKUP_REGION", " lon ", "LON"),
        ("CLOUD_BACKUP_PROJECT_ID", "110011", "110011"),
        ("AGENT_ID_KEYS", "BackupClient, host.agent,,", ("BackupClient", "host.agent")),
        ("COOL_DOWN_SECONDS", "60", 60),
        ("RETRY_WINDOW_SECONDS", "0", 0),
        ("CAPTURE_DEADLINE_SECONDS", "0", 0),
        ("CONCURRENCY", "1", 1),
        ("PUBLISH_DOWNLOAD_URL", "false", False),
        ("PUBLISH_DOWNLOAD_URL", "True", True),
        ("CHAT_MESSAGES", "true", True),
        ("CHAT_MESSAGES", "False", False),
        ("ROTATION_ENABLED", "true", True),
        ("ROTATION_ENABLED", "FALSE", False),
    ],
)
def test_each_setting_is_read_from_the_variable_of_its_name(name, value, expected):
    settings = Settings.from_environment(REQUIRED | {name: value})
    assert getattr(settings, name.lower()) == expected


@pytest.mark.parametrize(
    "name",
    [
        "CLOUD_BACKUP_URL",
        "AGENT_ID_KEYS",
        "COOL_DOWN_SECONDS",
        "RETRY_WINDOW_SECONDS",
        "CAPTURE_DEADLINE_SECONDS",
        "CONCURRENCY",
        "PUBLISH_DOWNLOAD_URL",
        "CHAT_MESSAGES",
        "ROTATION_ENABLED",
    ],
)
def test_an_empty_variable_is_one_that_is_not_set(name):
    assert Settings.from_environment(REQUIRED | {name: " "}) == Settings.from_environment(REQUIRED)


@pytest.mark.parametrize("name", REQUIRED)
def test_a_missing_setting_names_itself(name):
    for environment in (REQUIRED | {name: ""}, {key: value for key, value in REQUIRED.items() if key != name}):
        with pytest.raises(SettingError, match=f"^{name} is not set$"):
            Settings.from_environment(environment)


NOT_OVER_HTTPS = (
    "http://backup.example.com",
    "HTTP://BACKUP.EXAMPLE.COM",
    "http://127.0.0.1.example.com",
    "http://localhost.example.com",
    "http://localhost%2eexample.com",
    "http://127.0.0.1\\.example.com",
    "http://[::1].example.com",
    "http://{region}",
    "http://localhost{region}",
    "http://localho\u017ft",
    "http://10.0.0.1",
    "http://127.1",
    "ftp://localhost",
    "//localhost",
    "https://",
    "https://:443",
    "https://[::1",
    "https:backup.example.com",
    "https:/backup.example.com",
    "https:\\\\backup.example.com",
    "https://backup.example.com\\elsewhere.example",
    "https://backup.example.com?a=b",
    "https://backup.example.com#a",
    "https://backup.example.com/a b",
    "https://backup.example.com/%2e",
    "https://backup .example.com",
    "https://backup\t.example.com",
    "https://backup\n.example.com",
    "https://backup\x00.example.com",
    "https://backup\u3002example.com",
    "https://b\xe4ckup.example.com",
    "https://backup..example.com",
    "https://.example.com",
    "https://-backup.example.com",
    f"https://{64 * 'a'}.example.com",
    "https://{other}.example.com",
    "https://{{region}}.example.com",
    "https://backup.example.com:",
    "https://backup.example.com:0",
    "https://backup.example.com:65536",
    "https://backup.example.com:+443",
    "https://backup.example.com:\u0664\u0664\u0663",
    "https://backup.example.com:{region}",
    "backup.example.com",
)
# The text before the last @ may be a password, and some parsers take the part behind it for the host.
WITH_USER_INFO = {
    "https://user:the-password@backup.example.com": "…@backup.example.com",
    "https://the-password@backup.example.com": "…@backup.example.com",
    "https://@backup.example.com": "…@backup.example.com",
    "https://{region}@backup.example.com": "…@backup.example.com",
    "https://user:the-\n@password@backup.example.com": "…@backup.example.com",
    "http://user:the-password@127.0.0.1": "…@127.0.0.1",
    "http://127.0.0.1@elsewhere.example": "…@elsewhere.example",
    "http://127.0.0.1:80@elsewhere.example": "…@elsewhere.example",
    "http://elsewhere.example\\@127.0.0.1": "…@127.0.0.1",
    "http://elsewhere.example\t\\@localhost": "…@localhost",
}
URL_RULE = "must be an https URL of host, port and path alone"


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        *(("CLOUD_BACKUP_URL", value, URL_RULE) for value in NOT_OVER_HTTPS),
        ("CLOUD_BACKUP_REGION", "US-EAST-1", "must be one of DFW HKG IAD LON ORD SYD"),
        ("CLOUD_BACKUP_PROJECT_ID", "../110011", "must be a project ID"),
        *(
            ("RETRY_WINDOW_SECONDS", value, "must be a whole number from 0 to 604800")
            for value in ("-1", "1.5", "a day", "٣", "1_000")
        ),
        ("COOL_DOWN_SECONDS", "-600", "must be a whole number from 0 to 604800"),
        ("CAPTURE_DEADLINE_SECONDS", "never", "must be a whole number from 0 to 604800"),
        ("CONCURRENCY", "0", "must be a whole number from 1 to 1024"),
        ("PUBLISH_DOWNLOAD_URL", "no", "must be true or false"),
        ("CHAT_MESSAGES", "slack", "must be true or false"),
        ("ROTATION_ENABLED", "1", "must be true or false"),
    ],
)
def test_a_bad_setting_names_itself_its_rule_and_its_value(name, value, rule):
    with pytest.raises(SettingError, match=f"^{re.escape(f"{name} {rule}, and is '{value}'")}$"):
        Settings.from_environment(REQUIRED | {name: value})


class TestRotation:
    def test_what_is_not_set_has_a_default(self):
        assert RotationSettings.from_environment({"CLOUD_BACKUP_REGION": "DFW"}) == RotationSettings(
            identity_url="https://identity.api.rackspacecloud.com",
            cloud_backup_url="https://{region}.backup.api.rackspacecloud.com",
            cloud_backup_region="DFW",
        )

    def test_each_setting_is_read_from_the_variable_of_its_name(self):
        environment = {
            "IDENTITY_URL": "http://127.0.0.1:8000/",
            "CLOUD_BACKUP_URL": "https://backup.example.com",
            "CLOUD_BACKUP_REGION": "lon",
        }
        assert RotationSettings.from_environment(environment) == RotationSettings(
            identity_url="http://127.0.0.1:8000",
            cloud_backup_url="https://backup.example.com",
            cloud_backup_region="LON",
        )

    def test_the_region_is_needed(self):
        with pytest.raises(SettingError, match=r"^CLOUD_BACKUP_REGION is not set$"):
            RotationSettings.from_environment({})

    @pytest.mark.parametrize("name", ["IDENTITY_URL", "CLOUD_BACKUP_URL"])
    @pytest.mark.parametrize("value", NOT_OVER_HTTPS)
    def test_credentials_and_token_are_sent_over_https_only(self, name, value):
        with pytest.raises(SettingError, match=f"^{re.escape(f"{name} {URL_RULE}, and is '{value}'")}$"):
            RotationSettings.from_environment({"CLOUD_BACKUP_REGION": "DFW", name: value})

    @pytest.mark.parametrize("name", ["IDENTITY_URL", "CLOUD_BACKUP_URL"])
    @pytest.mark.parametrize(("value", "shown"), WITH_USER_INFO.items())
    def test_a_url_with_user_info_is_refused_and_not_shown(self, name, value, shown):
        with pytest.raises(SettingError, match=f"^{re.escape(f"{name} {URL_RULE}, and is '{shown}'")}$"):
            RotationSettings.from_environment({"CLOUD_BACKUP_REGION": "DFW", name: value})

    def test_identity_has_one_host_for_all_regions(self):
        url = "https://{region}.identity.example.com"
        with pytest.raises(SettingError, match=f"^{re.escape(f"IDENTITY_URL {URL_RULE}, and is '{url}'")}$"):
            RotationSettings.from_environment({"CLOUD_BACKUP_REGION": "DFW", "IDENTITY_URL": url})
