"""boto3, made asynchronous: each call in a thread, each failure a ProviderFailed that says what to do.

The only module that knows boto3, an extra of the package: imported when a client is made. botocore retries what is
safe to retry, and slows down when AWS throttles (its adaptive mode); what still fails is the controller's to retry.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from kubesvc.loadbalancer.config import AwsConfig
from kubesvc.loadbalancer.provider import BadProvider, ProviderFailed
from kubesvc.loadbalancer.providers.aws import failures

log = logging.getLogger(__name__)

CALLS = 16  # at once
ATTEMPTS = 6


class AwsError(ProviderFailed):
    """`code` is AWS's; "" when nobody answered, and nobody knows whether it was done."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class Client:
    """boto3's clients of elbv2 and ec2. Raises BadProvider: no boto3, no region, no such credentials profile."""

    def __init__(self, config: AwsConfig) -> None:
        try:
            import boto3
            import botocore.config
            import botocore.exceptions
        except ImportError as error:
            raise BadProvider("provider aws needs boto3: pip install 'kubesvc[aws]'") from error
        self._client_error = botocore.exceptions.ClientError
        self._any_error = botocore.exceptions.BotoCoreError
        settings = botocore.config.Config(
            retries={"mode": "adaptive", "total_max_attempts": ATTEMPTS},
            max_pool_connections=CALLS,
            connect_timeout=5,
            read_timeout=30,
            user_agent_extra="kubesvc",
        )
        try:
            session = boto3.session.Session(region_name=config.region or None)
            self.clients: dict[str, Any] = {
                api: session.client(api, endpoint_url=config.endpoint_url or None, config=settings)
                for api in ("elbv2", "ec2")
            }
        except botocore.exceptions.NoRegionError as error:
            raise BadProvider("provider aws needs to know the region: give --aws-region or AWS_REGION") from error
        except botocore.exceptions.BotoCoreError as error:
            raise BadProvider(f"provider aws can't begin: {error}") from error
        except ValueError as error:
            raise BadProvider(f"--aws-endpoint-url {config.endpoint_url}: {error}") from error
        self._threads = ThreadPoolExecutor(CALLS, "aws")

    async def call(self, api: str, operation: str, **arguments: Any) -> Any:
        """The answer. Raises AwsError."""
        return await self._run(api, operation, lambda: getattr(self.clients[api], operation)(**arguments))

    async def pages(self, api: str, operation: str, field: str, **arguments: Any) -> list[Any]:
        """All of `field`, over as many pages as there are. Raises AwsError."""

        def gather() -> list[Any]:
            pages = self.clients[api].get_paginator(operation).paginate(**arguments)
            return [item for page in pages for item in page.get(field, ())]

        found: list[Any] = await self._run(api, operation, gather)
        return found

    async def _run(self, api: str, operation: str, work: Callable[[], Any]) -> Any:
        what = failures.action(api, operation)
        log.debug("%s", what)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except self._client_error as error:
            said = error.response.get("Error", {})
            code = said.get("Code", "Unknown")
            message = failures.describe(api, operation, code, said.get("Message", ""))
            raise AwsError(message, code) from error
        except self._any_error as error:
            if type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError"):
                remedy = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or the instance's or pod's role"
                raise AwsError(f"AWS {what}: no credentials: {remedy}") from error
            raise AwsError(f"AWS {what}: {error}") from error

    def close(self) -> None:
        self._threads.shutdown(wait=False)
