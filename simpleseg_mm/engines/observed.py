"""What an engine says of a request: plain data."""
from dataclasses import dataclass

from ..structures import Generated


@dataclass(frozen=True)
class Observed:
    """A greedy answer of an engine, and what the engine says that it has read.

    Attributes:
        answer: with the tokens' ids; with their log-probabilities where the engine gives them.
        prompt_ids: the prompt as the engine reads it, a picture as one id a token of it; None
            where it is not told.
        prompt_tokens: how many those are; None where it is not told.
        text_tokens: tokens of the same prompt without its picture; None where it is not told.
        limit: tokens that the answer was allowed; None: not limited by the request.
    """
    answer: Generated
    prompt_ids: tuple[int, ...] | None = None
    prompt_tokens: int | None = None
    text_tokens: int | None = None
    limit: int | None = None
