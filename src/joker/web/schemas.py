"""What comes in and goes out over HTTP: validated, documented, with examples.

Routes turn these into the plain values of `joker.jobs.job` and back. The OpenAI shapes
stand beside their route in `joker.web.routes.completions`.
"""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field, model_validator

from joker.core.sampling import MOST_STOPS, Sampling
from joker.generation.moderation import CATEGORIES, Category, read_categories
from joker.jobs.job import Job, JokeRequest, JokeResult, State
from joker.web.share_links import link_to

SAMPLING = Sampling()
LARGEST_SEED = 2**32 - 1


def _check_unicode(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("half a surrogate pair is no character; send valid Unicode") from error
    return text


Prompt = Annotated[
    str,
    AfterValidator(_check_unicode),
    Field(
        description="The start of a question, a whole one ending in '?', or nothing: then the "
        "question is invented, too. `/info` says how long it may be.",
        examples=["Why do cats"],
    ),
]
Count = Annotated[
    int,
    Field(ge=1, description="How many jokes; `/info` says how many at most.", examples=[1]),
]
Seed = Annotated[
    int | None,
    Field(
        ge=0,
        le=LARGEST_SEED,
        description="Tells the same jokes again; one is drawn where it is missing.",
        examples=[7],
    ),
]
Safe = Annotated[
    bool,
    Field(description="Withhold what moderation flags as offensive.", examples=[True]),
]
ExcludeCategories = Annotated[
    list[Category],
    Field(
        max_length=len(CATEGORIES),
        description="Also withhold what is flagged for one of these categories, even a mere topic.",
        examples=[["political", "religious"]],
    ),
]
Candidates = Annotated[
    int | None,
    Field(
        ge=1,
        description="Candidates of each joke, of which the best is told; `/info` has default and "
        "limit.",
        examples=[4],
    ),
]
Temperature = Annotated[
    float,
    Field(
        ge=0,
        le=5,
        allow_inf_nan=False,
        description="Above 1 wilder, below 1 tamer, 0 always the likeliest.",
        examples=[1.0],
    ),
]
TopK = Annotated[
    int,
    Field(ge=0, le=100_000, description="Draw from the k likeliest tokens; 0 from all."),
]
TopP = Annotated[
    float,
    Field(gt=0, le=1, description="Draw from the fewest tokens that reach this probability."),
]
NewTokens = Annotated[
    int,
    Field(ge=1, description="Most tokens behind the prompt; `/info` has the limit."),
]
Deadline = Annotated[
    float | None,
    Field(
        gt=0,
        allow_inf_nan=False,
        description="Seconds until the job fails if it is not told; `/info` has default and limit.",
        examples=[10],
    ),
]
StopText = Annotated[str, AfterValidator(_check_unicode), Field(min_length=1, max_length=100)]
Stop = Annotated[
    list[StopText],
    Field(
        max_length=MOST_STOPS,
        description="Texts that end an answer where the first of them begins.",
        examples=[["!"]],
    ),
]


class JokeOptions(BaseModel):
    """What is asked for: the query of `GET /joke`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: Prompt = ""
    n: Count = 1
    safe: Safe = True
    exclude_categories: ExcludeCategories = []
    seed: Seed = None
    candidates: Candidates = None
    temperature: Temperature = SAMPLING.temperature
    top_k: TopK = SAMPLING.top_k
    top_p: TopP = SAMPLING.top_p
    max_new_tokens: NewTokens = SAMPLING.max_new_tokens
    stop: Stop = []
    deadline_seconds: Deadline = None

    def to_request(self, *, seed: int, candidates: int) -> JokeRequest:
        """Return the request as the queue takes it; a seed or number given here is the default."""
        return JokeRequest(
            prompt=self.prompt,
            count=self.n,
            sampling=Sampling(
                self.temperature, self.top_k, self.top_p, self.max_new_tokens, tuple(self.stop)
            ),
            seed=seed if self.seed is None else self.seed,
            safe=self.safe,
            exclude_categories=read_categories(self.exclude_categories),
            candidates=candidates if self.candidates is None else self.candidates,
            deadline_seconds=self.deadline_seconds,
        )

    @model_validator(mode="after")
    def _one_rule_only(self) -> Self:
        if self.exclude_categories and not self.safe:
            raise ValueError(
                "'safe': false withholds nothing, 'exclude_categories' something; give one of them"
            )
        return self


def _describe_body(schema: dict[str, Any]) -> None:
    prompt = schema["properties"]["prompt"]
    description = "Another name of `prompt`."
    schema["properties"]["textprompt"] = {**prompt, "description": description}
    schema["not"] = {"required": ["prompt", "textprompt"]}
    schema["examples"] = [{"textprompt": "Why do cats"}, {"prompt": "What do you call", "n": 3}]


class GenerateBody(JokeOptions):
    """What is asked for: the body of `POST /generate`."""

    model_config = ConfigDict(json_schema_extra=_describe_body)

    prompt: Annotated[Prompt, Field(validation_alias=AliasChoices("prompt", "textprompt"))] = ""

    @model_validator(mode="before")
    @classmethod
    def _one_name_only(cls, given: Any) -> Any:
        if isinstance(given, dict) and {"prompt", "textprompt"} <= given.keys():
            raise ValueError("'prompt' and 'textprompt' are two names of one thing; give one")
        return given


class Joke(BaseModel):
    """One joke that was told."""

    question: str = Field(examples=["Why did the kettle blush?"])
    answer: str = Field(examples=["It saw the teapot's bare spout."])
    seed: int = Field(description="Tells this joke again, with the same prompt and options.")
    tries: int = Field(description="How many times the model was asked for it.")
    original: bool | None = Field(
        description="Whether it is no near-duplicate of a training joke; null if not known."
    )
    similarity: float | None = Field(
        description="To the most similar training joke, from 0 to 1; null where it is not known."
    )
    link: str = Field(description="A path to share: it tells this joke again.")

    @classmethod
    def of(cls, request: JokeRequest, joke: JokeResult) -> Self:
        """Describe a joke and how to hear it again."""
        return cls(
            question=joke.question,
            answer=joke.answer,
            seed=joke.seed,
            tries=joke.tries,
            original=joke.original,
            similarity=joke.similarity,
            link=link_to(request, joke.seed),
        )


class Task(BaseModel):
    """A job as a client sees it."""

    task_id: str = Field(description="Names the job at `/generate/{task_id}`.")
    state: State = Field(description="SUCCESS, FAILURE and REVOKED are final.")
    result: list[Joke] = Field(description="What has been told; all of it once SUCCESS.")
    error: str | None = Field(description="Why the job failed, in one sentence.")
    seed: int = Field(description="Tells all of the job's jokes again.")

    @classmethod
    def of(cls, job: Job) -> Self:
        """Describe a job."""
        return cls(
            task_id=job.id,
            state=job.state,
            result=[Joke.of(job.request, joke) for joke in job.jokes],
            error=job.error,
            seed=job.request.seed,
        )


class WrongParameter(BaseModel):
    """A parameter that cannot be used, and why."""

    parameter: str = Field(examples=["n"])
    location: str = Field(examples=["body"])
    detail: str = Field(examples=["Input should be greater than or equal to 1"])


class Problem(BaseModel):
    """An error, as RFC 9457 (`application/problem+json`) shapes it."""

    type: str = Field(default="about:blank", description="`about:blank`: the status says it all.")
    title: str = Field(examples=["Unprocessable Content"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["n: Input should be greater than or equal to 1"])
    instance: str = Field(description="The path that was asked for.", examples=["/generate"])
    request_id: str = Field(description="Names the request in the server's log.")
    message: str | None = Field(
        default=None, description="Below `/v1` the detail again: there OpenAI clients look for it."
    )
    errors: list[WrongParameter] | None = Field(
        default=None, description="Each parameter that cannot be used."
    )
