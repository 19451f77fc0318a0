"""Secrets that hold a ServiceAccount's token: kept, filled or taken away."""

from __future__ import annotations

import pytest

from kubesvc.api.meta import Object, ObjectMeta
from kubesvc.controllers.tokensecret.plan import NAME, UID, Plan, plan

ACCOUNT = Object(metadata=ObjectMeta(name="robot", namespace="a", uid="1"))


@pytest.mark.parametrize(
    ("annotations", "account", "expected"),
    [
        pytest.param({NAME: "robot", UID: "1"}, ACCOUNT, Plan.KEEP, id="its account is there"),
        pytest.param({NAME: "robot"}, ACCOUNT, Plan.FILL, id="made before its account"),
        pytest.param({NAME: "robot", UID: "1"}, None, Plan.DELETE, id="its account is gone"),
        pytest.param({NAME: "robot", UID: "0"}, ACCOUNT, Plan.DELETE, id="another has the name"),
        pytest.param({NAME: "robot"}, None, Plan.DELETE, id="nobody's"),
        pytest.param({}, None, Plan.DELETE, id="names nobody"),
    ],
)
def test_a_secret_lives_as_long_as_the_account_it_is_for(
    annotations: dict[str, str], account: Object | None, expected: Plan
) -> None:
    secret = Object(metadata=ObjectMeta(name="s", namespace="a", annotations=annotations))
    assert plan(secret, account) is expected
