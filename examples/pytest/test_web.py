"""A Service in front of two pods, tested as its users see it."""

from pathlib import Path

import pytest

MANIFEST = Path(__file__).with_name("web.yaml")


@pytest.fixture
def web(kubesvc):
    kubesvc.apply(MANIFEST)
    kubesvc.wait_ready("deployment/web")
    kubesvc.wait_ready("service/web")
    return kubesvc


def test_both_pods_answer_under_one_name(web):
    pods = {pod["metadata"]["name"] for pod in web.get("pods")["items"] if pod["metadata"]["name"].startswith("web-")}
    answers = set()
    for _ in range(40):  # each is picked at random
        answers.add(web.curl("http://web/").text.strip())
        if answers == pods:
            break
    assert answers == pods


def test_a_page_that_is_not_there_is_404(web):
    assert web.curl("http://web/none").status == 404


def test_each_test_has_a_namespace_of_its_own(kubesvc):
    assert kubesvc.get("services")["items"] == []
