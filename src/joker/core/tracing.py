"""OpenTelemetry traces of a request, from the server to the engine.

OpenTelemetry's environment variables configure them. Without an endpoint in
``OTEL_EXPORTER_OTLP_ENDPOINT`` nothing is imported, and all functions do nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from joker.core.errors import ConfigError, import_optional

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"

Attributes = Mapping[str, str | int | float | None]
"""A span's attributes; those that are None are omitted. ``error.type`` marks the span as failed."""


@dataclass(slots=True)
class Span:
    """A span in progress; its name and attributes may change until it ends."""

    name: str
    attributes: dict[str, str | int | float | None]


_provider: TracerProvider | None = None


def start_tracing(service: str) -> None:
    """Export spans until `stop_tracing`, if OpenTelemetry's variables name an endpoint.

    The service gets this name, unless the variables set one.

    Raises:
        MissingDependencyError: If the extra ``tracing`` is not installed.
        ConfigError: If a variable cannot be used.
    """
    global _provider
    endpoint = next((name for name in _ENDPOINTS if os.environ.get(name)), None)
    if (
        endpoint is None
        or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
        or os.environ.get("OTEL_TRACES_EXPORTER", "otlp") == "none"
    ):
        return
    protocol = next((name for name in _PROTOCOLS if os.environ.get(name)), None)
    if protocol and os.environ[protocol] != _PROTOCOL:
        raise ConfigError(
            f"cannot export traces: {protocol} is {os.environ[protocol]}, but only {_PROTOCOL} is "
            f"supported; set it to that, and {endpoint} to the collector's HTTP endpoint, usually "
            "on port 4318"
        )
    import_optional(
        "opentelemetry.exporter.otlp.proto.http.trace_exporter",
        f"traces, which {endpoint} turns on, need",
        extra="tracing",
        otherwise=f"unset {endpoint}",
    )
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    from_environment = OTELResourceDetector().detect().attributes
    try:
        resource = Resource.create({SERVICE_NAME: service, **from_environment})
        provider = TracerProvider(resource=resource)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    except ValueError as error:
        raise ConfigError(f"cannot export traces: {error}; correct the OTEL_ variable") from error
    _provider = provider


def stop_tracing() -> None:
    """Export the remaining spans and stop tracing.

    Waits at most 10 seconds (``OTEL_EXPORTER_OTLP_TIMEOUT``) for a collector that is down.
    """
    global _provider
    provider, _provider = _provider, None
    if provider:
        provider.shutdown()


@contextmanager
def span(
    name: str,
    attributes: Attributes | None = None,
    *,
    parent: str | None = None,
    kind: Literal["INTERNAL", "SERVER", "CONSUMER"] = "INTERNAL",
    began: float | None = None,
) -> Iterator[Span]:
    """Trace the context as a span.

    By default the current span is its parent, a W3C ``traceparent``, and it ``began`` now, in Unix
    time.
    """
    traced = Span(name, dict(attributes or {}))
    if _provider is None:
        yield traced
        return
    from opentelemetry.trace import SpanKind, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    context = TraceContextTextMapPropagator().extract({"traceparent": parent}) if parent else None
    # Another machine's clock may be ahead.
    began = None if began is None else min(began, time.time())
    with _provider.get_tracer("joker").start_as_current_span(
        name,
        context,
        SpanKind[kind],
        start_time=None if began is None else int(began * 1e9),
    ) as otel_span:
        try:
            yield traced
        finally:
            otel_span.update_name(traced.name)
            for key, value in traced.attributes.items():
                if value is not None:
                    otel_span.set_attribute(key, value)
            if traced.attributes.get("error.type"):
                otel_span.set_status(StatusCode.ERROR)


def traceparent() -> str | None:
    """Return the W3C ``traceparent`` of the current span, or None."""
    if _provider is None:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent")


def trace_id() -> str | None:
    """Return the id of the current trace in hexadecimal, or None."""
    parent = traceparent()
    return parent.split("-")[1] if parent else None
