"""GET /v1/policy: what the assistant is held to. It shows neither files and addresses nor the scores that decide."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from turnwise_server.api.openapi import describe_errors
from turnwise_server.api.respond import json_response
from turnwise_server.api.services import services_of
from turnwise_server.chat.refusal.policy_categories import Category
from turnwise_server.chat.refusal.policy_file import LoadedPolicy

router = APIRouter()


class PolicyPrinciple(BaseModel):
    """A rule of the constitution."""

    id: str
    text: str
    weight: float
    categories: tuple[str, ...]


class PolicyCategory(BaseModel):
    """A category, and what is done and said about it."""

    id: str
    openai: tuple[str, ...]
    input_action: str
    output_action: str
    on_error: str
    refusal: dict[str, str] | None
    safe_completion: dict[str, str] | None
    caution: dict[str, str] | None


class PolicyObject(BaseModel):
    """The policy in force."""

    object: Literal["policy"] = "policy"
    name: str
    version: int
    sha256: str
    language_default: str
    output_mode: str
    principles: tuple[PolicyPrinciple, ...]
    categories: tuple[PolicyCategory, ...]


@router.get("/v1/policy", response_model=PolicyObject, responses=describe_errors(401, 403, 500))
async def show_policy(request: Request) -> Response:
    """Show the policy that requests and replies are held to."""
    return json_response(policy_object(services_of(request).policy.current).model_dump())


def policy_object(loaded: LoadedPolicy) -> PolicyObject:
    """Return what everybody may know of a policy."""
    policy = loaded.policy
    return PolicyObject(
        name=policy.name,
        version=policy.version,
        sha256=loaded.sha256,
        language_default=policy.language_default,
        output_mode=policy.output.mode,
        principles=tuple(
            PolicyPrinciple(id=each.id, text=each.text, weight=each.weight, categories=each.categories)
            for each in policy.principles
        ),
        categories=tuple(map(_category, policy.categories)),
    )


def _category(category: Category) -> PolicyCategory:
    return PolicyCategory(
        id=category.id,
        openai=category.openai,
        input_action=category.input.action,
        output_action=category.output.action,
        on_error=category.on_error,
        refusal=category.refusal.text if category.refusal else None,
        safe_completion=category.safe_completion.text if category.safe_completion else None,
        caution=category.caution.prefix if category.caution else None,
    )
