from __future__ import annotations

import ssl

from joker.jobs.broker import make_celery


def test_certificates_are_verified_without_being_asked_for() -> None:
    with make_celery("rediss://:secret@redis.example:6380/0") as app:
        options = app.connection_for_write().ssl
    assert options["ssl_cert_reqs"] is ssl.CERT_REQUIRED
    assert options["ssl_check_hostname"] is True


def test_a_url_may_name_its_own_authority() -> None:
    with make_celery("rediss://redis.example/0?ssl_ca_certs=/etc/ca.pem") as app:
        assert app.connection_for_write().ssl["ssl_ca_certs"] == "/etc/ca.pem"


def test_a_redis_without_tls_is_reached_without_it() -> None:
    with make_celery("redis://localhost/0") as app:
        assert not app.connection_for_write().ssl
