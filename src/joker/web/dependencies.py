"""What routes ask for: the parts that `joker.web.app.create_app` put together, by type."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from joker.jobs.queue import JobQueue
from joker.settings import Settings
from joker.web.metrics import Metrics
from joker.web.readiness import Readiness
from joker.web.submission import Intake


def _queue(request: Request) -> JobQueue:
    queue: JobQueue = request.app.state.queue
    return queue


def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


def _intake(request: Request) -> Intake:
    intake: Intake = request.app.state.intake
    return intake


def _readiness(request: Request) -> Readiness:
    readiness: Readiness = request.app.state.readiness
    return readiness


def _metrics(request: Request) -> Metrics:
    metrics: Metrics = request.app.state.metrics
    return metrics


TheQueue = Annotated[JobQueue, Depends(_queue)]
TheSettings = Annotated[Settings, Depends(_settings)]
TheIntake = Annotated[Intake, Depends(_intake)]
TheReadiness = Annotated[Readiness, Depends(_readiness)]
TheMetrics = Annotated[Metrics, Depends(_metrics)]
