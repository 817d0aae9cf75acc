"""template.yaml as CloudFormation sees it, without AWS."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from boto3.session import Session
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator
from samtranslator.yaml_helper import yaml_parse

TEMPLATE = Path(__file__).resolve().parent.parent / "template.yaml"

# The transform needs a region to know the partition; all regions of the commercial one give the same result.
_REGION = "us-east-1"
STACK = "agent-log-capture"
PSEUDO_PARAMETERS = {
    "AWS::AccountId": 12 * "1",
    "AWS::NoValue": "",
    "AWS::Partition": "aws",
    "AWS::Region": _REGION,
    "AWS::StackName": STACK,
    "AWS::URLSuffix": "amazonaws.com",
}
_PLACEHOLDER = re.compile(r"\$\{([^}!]+)\}")


def translate(path: Path = TEMPLATE, parameters: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Translate the SAM template at `path` into plain CloudFormation.

    Conditions and references stay as they are. Each of `parameters` becomes the default of the parameter of that
    name; a name that the template does not have is a `KeyError`. The functions' code gets an invented location.
    This needs no credentials and no network.
    """
    template: dict[str, Any] = yaml_parse(path.read_text(encoding="utf-8"))
    for name, value in (parameters or {}).items():
        template["Parameters"][name]["Default"] = value
    # The transform accepts code in S3 only; `sam deploy` uploads it there.
    template["Globals"]["Function"]["CodeUri"] = "s3://bucket/key"
    translator = Translator(None, Parser(), boto_session=Session(region_name=_REGION))
    translated: dict[str, Any] = translator.translate(template, parameter_values={})
    # The translator writes a warning to stderr unless its metrics are published; this publisher discards them.
    translator.metrics.publish()
    return translated


def resolve(template: Mapping[str, Any], node: Any, pseudo: Mapping[str, str] = PSEUDO_PARAMETERS) -> Any:  # noqa: ANN401 (any YAML)
    """Return `node` with its references replaced by the parameters' defaults and the resources' names.

    A resource becomes its logical ID, an attribute of it `ID.Attribute`; conditions stay as they are. A reference to
    something that the template does not have is a `KeyError`.
    """

    def value_of(name: str) -> str:
        if name in pseudo:
            return pseudo[name]
        if name in template["Parameters"]:
            return str(template["Parameters"][name]["Default"])
        if name.partition(".")[0] not in template["Resources"]:
            raise KeyError(name)
        return name

    match node:
        case list():
            return [resolve(template, each, pseudo) for each in node]
        case {"Ref": str(name), **others} if not others:
            return value_of(name)
        case {"Fn::GetAtt": [str(name), str(attribute)], **others} if not others:
            return value_of(f"{name}.{attribute}")
        case {"Fn::Sub": str(text), **others} if not others:
            return _PLACEHOLDER.sub(lambda found: value_of(found[1]), text)
        case dict():
            return {key: resolve(template, each, pseudo) for key, each in node.items()}
    return node
