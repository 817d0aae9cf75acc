"""template.yaml as CloudFormation sees it, without AWS."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from boto3.session import Session
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator
from samtranslator.yaml_helper import yaml_parse

TEMPLATE = Path(__file__).resolve().parent.parent / "template.yaml"

# The transform asks which partition it works for; every region of the commercial one gives the same answer.
_REGION = "us-east-1"


def translate(path: Path = TEMPLATE, parameters: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Translate the SAM template at `path` into plain CloudFormation.

    Conditions and references stay as they are. Each of `parameters` becomes the default of the parameter of that
    name; a name that the template does not have is a `KeyError`. The functions' code gets a made-up place.
    Neither credentials nor a network are needed.
    """
    template: dict[str, Any] = yaml_parse(path.read_text(encoding="utf-8"))
    for name, value in (parameters or {}).items():
        template["Parameters"][name]["Default"] = value
    # SAM takes code from S3 alone; `sam build` and `sam deploy` put it there.
    template["Globals"]["Function"]["CodeUri"] = "s3://bucket/key"
    translator = Translator(None, Parser(), boto_session=Session(region_name=_REGION))
    translated: dict[str, Any] = translator.translate(template, parameter_values={})
    # To nobody: the translator counts what it does, and complains on stderr when nobody takes the figures.
    translator.metrics.publish()
    return translated
