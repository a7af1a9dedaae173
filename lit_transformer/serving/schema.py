"""The bodies of requests: OpenAI's completions, with a few more ways to choose tokens."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Stop = Annotated[str, Field(min_length=1, max_length=1000)]
Token = Annotated[int, Field(ge=0, le=2**31)]
TokenName = Annotated[str, Field(pattern="^[0-9]{1,9}$")]


class Strict(BaseModel):
    """Base of the bodies: an unknown field or a value of another type is an error, not a guess."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class StreamOptions(Strict):
    """What a stream tells beside the text."""

    include_usage: bool = Field(False, description="whether the last piece says how many tokens were read and written")


class CompletionRequest(Strict):
    """``POST /v1/completions``."""

    prompt: str | list[str] | list[Token] | list[list[Token]] = Field(
        description="what to continue: a text, several, or token ids", examples=["Once upon a time"]
    )
    model: str | None = Field(None, description="name of the model, as /v1/models says it; left out: the only one")
    max_tokens: int | None = Field(16, ge=0, le=2**31, description="most tokens to add to each prompt")
    temperature: float | None = Field(1.0, ge=0, le=100, description="0 takes the most probable token")
    top_p: float | None = Field(1.0, gt=0, le=1, description="only the tokens that hold this share together")
    top_k: int | None = Field(None, ge=1, le=2**31, description="only this many tokens")
    min_p: float | None = Field(None, gt=0, le=1, description="only tokens this share as probable as the first")
    n: int | None = Field(1, ge=1, le=128, description="texts for each prompt")
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1, description="the same seed gives the same text")
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = Field(None, description="end before these texts")
    stream: bool | None = Field(False, description="send the text as it comes, as server-sent events")
    stream_options: StreamOptions | None = None
    logprobs: int | None = Field(None, ge=0, le=20, description="tell so many of the most probable tokens")
    echo: bool | None = Field(False, description="begin the text with the prompt")
    presence_penalty: float | None = Field(0.0, ge=-100, le=100, description="taken off tokens that were written")
    frequency_penalty: float | None = Field(0.0, ge=-100, le=100, description="the same, for each time")
    repetition_penalty: float | None = Field(
        None, ge=0.01, le=100, description="divides the score of tokens said before"
    )
    logit_bias: dict[TokenName, Annotated[float, Field(ge=-100, le=100)]] | None = Field(
        None, max_length=1000, description="what is added to the score of a token, by its id"
    )
    user: str | None = Field(None, max_length=1000, description="taken and not used")
