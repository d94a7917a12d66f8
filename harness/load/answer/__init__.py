"""The chat APIs, by the name that an engine gives them (contracts.ApiName)."""

from collections.abc import Mapping

from harness.contracts import ApiName
from harness.load.answer import anthropic, gemini, openai
from harness.load.answer.api import Api

APIS: Mapping[ApiName, Api] = {"anthropic": anthropic.API, "gemini": gemini.API, "openai": openai.API}
