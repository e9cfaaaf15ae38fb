"""policies/policy.schema.json, which training and editors go by, says what the server's classes say."""

import json
from pathlib import Path

from jsonschema import Draft202012Validator
from pydantic.json_schema import GenerateJsonSchema

from turnwise_server.chat.refusal.policy import Policy

SCHEMA = Path(__file__).parents[2] / "policies/policy.schema.json"


class Untitled(GenerateJsonSchema):
    """Leaves out titles, which repeat the keys."""

    def field_title_should_be_set(self, schema: object) -> bool:
        return False


def schema_of_the_classes() -> str:
    schema = Policy.model_json_schema(schema_generator=Untitled)
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def test_the_schema_is_the_one_of_the_classes() -> None:
    assert SCHEMA.read_text() == schema_of_the_classes(), "run this file to write the schema anew"


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(json.loads(SCHEMA.read_text()))


if __name__ == "__main__":
    SCHEMA.write_text(schema_of_the_classes())
