"""What the frontend says of itself and its workers: models that it serves, instances that it lists."""

import contextlib
import json
from dataclasses import dataclass
from typing import Any

from support.asking import NoAnswer, ask


def refuses(url: str, timeout: float = 2.0) -> bool:
    """Whether a connection to ``url`` is refused: nobody listens there. One that gets no answer is not."""
    try:
        ask(url, timeout)
    except NoAnswer as error:
        return isinstance(error.__cause__, ConnectionRefusedError)
    return False


def get_json(url: str, timeout: float = 2.0) -> Any | None:
    """The JSON at ``url``; None when there is no answer, no 2xx and no JSON."""
    with contextlib.suppress(NoAnswer, ValueError):
        answer = ask(url, timeout)
        if answer.status < 300:
            return answer.json()
    return None


@dataclass(frozen=True)
class Instance:
    """One ``generate`` endpoint that the frontend knows.

    Attributes:
        component: ``backend`` or ``prefill``.
        number: Dynamo's instance id.
        transport: as it is listed; over tcp it begins with the worker's address.
    """

    component: str
    number: int
    transport: str


def accepts_requests(frontend_url: str, timeout: float = 2.0) -> bool:
    """Whether the completions API is switched on; 1.2 lists a model a moment before that and answers 404 until then.

    Asked with an empty body, which is refused before it counts as a request.
    """
    with contextlib.suppress(NoAnswer):
        return ask(f"{frontend_url}/v1/completions", timeout, "POST", {}).status != 404
    return False


def models(frontend_url: str) -> list[str] | None:
    """Names of the models that the frontend lists; None when it does not answer."""
    body = get_json(f"{frontend_url}/v1/models")
    return [str(model["id"]) for model in body["data"]] if body else None


def serves(frontend_url: str, model: str) -> bool:
    """Whether the frontend lists the model and takes requests for it."""
    return model in (models(frontend_url) or ()) and accepts_requests(frontend_url)


def instances(frontend_url: str) -> list[Instance] | None:
    """The ``generate`` endpoints that the frontend lists; None when it does not answer. Its ``/health`` is 200
    without any.
    """
    body = get_json(f"{frontend_url}/health")
    if body is None:
        return None
    return [
        Instance(each["component"], int(each["instance_id"]), json.dumps(each["transport"]))
        for each in body.get("instances", [])
        if each["endpoint"] == "generate"
    ]


def numbers(frontend_url: str) -> set[str] | None:
    """What Dynamo calls the workers that the frontend lists, see :func:`support.observe.workers.worker_id`; None when
    it does not answer.
    """
    listed = instances(frontend_url)
    return None if listed is None else {f"{each.number:x}" for each in listed}
