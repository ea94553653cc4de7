"""The API server of a cluster: plain objects in and out, and one clear sentence for whatever it does not do."""

import contextlib
import json
import re
import urllib.parse
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from kubernetes import client, config
from kubernetes.client.rest import RESTClientObject
from kubernetes.stream.ws_client import WSClient
from urllib3.exceptions import HTTPError
from websocket import WebSocketBadStatusException, WebSocketException, setdefaulttimeout

from support.asking import Order, Response
from support.errors import SuiteError

Object = dict[str, Any]
"""An object of the API as its manifest has it."""
MANAGER = "dynamo-fault-tolerance"
"""Field manager of what is applied, and the value of the label :data:`MANAGED` on all that the suite makes."""
MANAGED = "app.kubernetes.io/managed-by"
ANSWER_SECONDS = 15.0
EXEC_SECONDS = 20.0
LONGEST_SECONDS = 3600.0
"""Of a stream of lines, a scenario's longest limit."""
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
PLACES = {
    "Namespace": ("/api/v1", "namespaces", False),
    "Pod": ("/api/v1", "pods", True),
    "Service": ("/api/v1", "services", True),
    "ConfigMap": ("/api/v1", "configmaps", True),
    "Secret": ("/api/v1", "secrets", True),
    "ResourceQuota": ("/api/v1", "resourcequotas", True),
    "ServiceAccount": ("/api/v1", "serviceaccounts", True),
    "Node": ("/api/v1", "nodes", False),
    "Event": ("/api/v1", "events", True),
    "StatefulSet": ("/apis/apps/v1", "statefulsets", True),
    "ReplicaSet": ("/apis/apps/v1", "replicasets", True),
    "PodDisruptionBudget": ("/apis/policy/v1", "poddisruptionbudgets", True),
    "Deployment": ("/apis/apps/v1", "deployments", True),
    "Role": ("/apis/rbac.authorization.k8s.io/v1", "roles", True),
    "RoleBinding": ("/apis/rbac.authorization.k8s.io/v1", "rolebindings", True),
    "EndpointSlice": ("/apis/discovery.k8s.io/v1", "endpointslices", True),
    "CustomResourceDefinition": ("/apis/apiextensions.k8s.io/v1", "customresourcedefinitions", False),
    "DynamoWorkerMetadata": ("/apis/nvidia.com/v1alpha1", "dynamoworkermetadatas", True),
}
"""Kind -> its group and version, its name in paths, and whether it lies in a namespace."""


setdefaulttimeout(EXEC_SECONDS)


class ClusterError(SuiteError):
    """The cluster cannot be reached, or refuses.

    Attributes:
        status: the HTTP status; 0 when there was no answer.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def place(kind: str, namespace: str = "", name: str = "") -> str:
    """The path of an object, or of all of a kind."""
    group, plural, lies_in_one = PLACES[kind]
    inside = f"/namespaces/{namespace}" if lies_in_one and namespace else ""
    return f"{group}{inside}/{plural}" + (f"/{urllib.parse.quote(name, safe='')}" if name else "")


def unreachable(host: str, error: Exception) -> str:
    """One sentence for no answer at all."""
    why = getattr(error, "reason", None) or error
    return f"the cluster at {host} does not answer: {why}; check that it runs, and that KUBECONFIG points to it"


def explain(status: int, body: str, host: str) -> str:
    """One sentence for a refusal, which says what to do.

    Args:
        body: the API server's own words, a ``Status`` object as a rule.
    """
    said = body.strip()
    with contextlib.suppress(ValueError, AttributeError):
        said = str(json.loads(body).get("message") or said)
    if status == 401:
        return (
            f"the cluster at {host} rejects the credentials of KUBECONFIG (401): they are wrong or have "
            "expired; get new ones, or name another file"
        )
    if "exceeded quota" in said:
        found = re.search(r"exceeded quota: ([^,]+), (.*)", said, re.DOTALL)
        name, rest = found.groups() if found else ("?", said)
        return f"the quota {name} of the namespace is too small ({rest}); raise it, or use another namespace"
    if status == 403:
        return f"the account of KUBECONFIG may not do that: {said}; docs/kubernetes.md has the role that it needs"
    if status == 404 and said.startswith("namespaces "):
        return f"{said}; make that namespace first, or leave the setting namespace out to have a new one made"
    return f"the cluster at {host} refuses ({status}): {said[:500]}"


def _see_carried(status: int, content: bytes) -> None:
    """Tell what a pod has answered from what the API server says in its place."""
    if status < 400:
        return
    said = content.decode("utf-8", "replace")
    if "connection refused" in said and "dial tcp" in said:
        raise ConnectionRefusedError(said.strip()[:300])
    if "error trying to reach service" in said or '"kind":"Status"' in said.replace(" ", ""):
        raise OSError(said.strip()[:300])


class ApiServer:
    """One cluster under one account.

    Args:
        kubeconfig: a file, or several with ``:`` between them; None: this process runs in a pod, and uses its account.

    Raises:
        ClusterError: there is no such configuration.
    """

    def __init__(self, kubeconfig: str | None) -> None:
        self.configuration = client.Configuration()
        try:
            if kubeconfig:
                config.load_kube_config(config_file=kubeconfig, client_configuration=self.configuration)
            else:
                config.load_incluster_config(client_configuration=self.configuration)
        except (config.ConfigException, OSError, ValueError) as error:
            missing = "KUBECONFIG is not set, and this is not a pod of a cluster"
            where = f"KUBECONFIG={kubeconfig}" if kubeconfig else missing
            raise ClusterError(0, f"{where}: {error}; name a kubeconfig file that kubectl can use") from None
        self.configuration.connection_pool_maxsize = 40  # logs that are followed keep one each
        self.configuration.retries = 1  # a second attempt where a kept connection turned out to be closed
        self.host = str(self.configuration.host).rstrip("/")
        self._http = RESTClientObject(self.configuration).pool_manager

    # -- one call

    @property
    def _token(self) -> str | None:
        """The header that says who asks, renewed where it has to be; None where a certificate does."""
        found = self.configuration.auth_settings().get("BearerToken")
        return str(found["value"]) if found else None

    def _send(
        self,
        method: str,
        path: str,
        body: str | None = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = ANSWER_SECONDS,
    ) -> Any:
        """The raw answer, whatever its status; its content is still to be read. HTTPError, OSError: there is none."""
        url = f"{self.host}{path}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
        about = dict(headers or {}) | ({"Authorization": self._token} if self._token else {})
        return self._http.request(
            method, url, body=body, headers=about, timeout=timeout, redirect=False, preload_content=False
        )

    def _ask(self, method: str, path: str, body: Any = None, content: str = "application/json", **options: Any) -> Any:
        """The raw answer to something that is to succeed.

        Raises:
            ClusterError: says what is wrong and what to do.
        """
        written = None if body is None else json.dumps(body)
        headers = {"Accept": "application/json, */*", "Content-Type": content}
        try:
            answer = self._send(method, path, written, headers=headers, **options)
            if answer.status < 300:
                return answer
            said = answer.data.decode("utf-8", "replace")
        except (HTTPError, OSError) as error:
            raise ClusterError(0, unreachable(self.host, error)) from None
        raise ClusterError(answer.status, explain(answer.status, said, self.host))

    def call(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        """An answer as JSON; the options are ``query``, ``content`` and ``timeout``.

        Raises:
            ClusterError: see there.
        """
        answer = self._ask(method, path, body, **options)
        try:
            return json.loads(answer.data)
        except (HTTPError, OSError, ValueError) as error:
            raise ClusterError(0, unreachable(self.host, error)) from None

    def proxy(self, namespace: str, pod: str, port: int, order: Order, timeout: float) -> Response:
        """What a port of a pod answers to an order, by way of the API server.

        Raises:
            OSError: nothing there takes it, or there is no such pod; ConnectionRefusedError where that is why.
        """
        method, path, body, headers = order
        try:
            there = f"{place('Pod', namespace, pod)}:{port}/proxy{path}"
            answer = self._send(method, there, body, headers=headers, timeout=timeout)
            status, content = int(answer.status), bytes(answer.data)
        except HTTPError as error:
            raise OSError(f"no answer by way of {self.host}: {error}") from None
        _see_carried(status, content)
        return Response(status, content)

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """An object; None when there is none of that name."""
        try:
            return dict(self.call("GET", place(kind, namespace, name)))
        except ClusterError as error:
            if error.status == 404:
                return None
            raise

    def list(self, kind: str, namespace: str = "", labels: str = "", fields: str = "") -> list[Object]:
        """All of a kind, in a namespace or in all of them."""
        query = {"labelSelector": labels, "fieldSelector": fields}
        chosen = {name: value for name, value in query.items() if value}
        return list(self.call("GET", place(kind, namespace), query=chosen)["items"])

    def apply(self, thing: Object, namespace: str) -> Object:
        """Have an object be as this manifest says (server-side apply); returns it as it is now."""
        path = place(thing["kind"], namespace, thing["metadata"]["name"])
        query = {"fieldManager": MANAGER, "force": "true"}
        return dict(self.call("PATCH", path, thing, query=query, content=APPLY))

    def annotate(self, kind: str, namespace: str, name: str, notes: Mapping[str, str]) -> None:
        """Set annotations of an object."""
        self.patch(kind, namespace, name, {"metadata": {"annotations": dict(notes)}})

    def patch(self, kind: str, namespace: str, name: str, change: Object) -> None:
        """Change a part of an object (merge patch)."""
        self.call("PATCH", place(kind, namespace, name), change, content=MERGE)

    def evict(self, namespace: str, name: str) -> bool:
        """Have a pod leave with its grace period; False when its budget does not allow that now, or it is gone."""
        thing = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": namespace}}
        try:
            self.call("POST", f"{place('Pod', namespace, name)}/eviction", thing)
        except ClusterError as error:
            if error.status in (404, 429):
                return False
            raise
        return True

    def delete(self, kind: str, namespace: str, name: str, grace: int | None = None, uid: str = "") -> bool:
        """Delete an object; False when it is not there any more.

        Args:
            grace: seconds that a pod has to end by itself; 0: it is gone from the API at once.
            uid: delete it only if it is this very one.
        """
        options: Object = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        if uid:
            options["preconditions"] = {"uid": uid}
        try:
            self.call("DELETE", place(kind, namespace, name), options)
        except ClusterError as error:
            if error.status in (404, 409):
                return False
            raise
        return True

    # -- what is more than one call

    def server_time(self) -> float:
        """What time it is for the API server, in seconds since the epoch: leases are of its clock, not of ours."""
        answer = self._ask("GET", "/version")
        answer.drain_conn()
        return parsedate_to_datetime(answer.headers["Date"]).timestamp()

    def access(self) -> dict[str, Any]:
        """How another program of this machine reaches the cluster as we do: ``host``, ``authority``, ``certificate``
        and ``key`` (files), ``token`` (a header, secret), ``verify``.
        """
        mine = self.configuration
        return {
            "host": self.host,
            "authority": mine.ssl_ca_cert,
            "certificate": mine.cert_file,
            "key": mine.key_file,
            "token": self._token,
            "verify": bool(mine.verify_ssl),
        }

    def version(self) -> str:
        """``v1.34.4``."""
        return str(self.call("GET", "/version")["gitVersion"])

    def may(self, verb: str, group: str, resource: str, namespace: str = "") -> bool:
        """Whether the account may do that; ``resource`` with its subresource, ``pods/exec``."""
        name, _, sub = resource.partition("/")
        wanted = {"verb": verb, "group": group, "resource": name, "subresource": sub, "namespace": namespace}
        review = {"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1"}
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        return bool(self.call("POST", path, review | {"spec": {"resourceAttributes": wanted}})["status"]["allowed"])

    def lines(self, path: str, query: Mapping[str, Any], timeout: float | None = None) -> Iterator[bytes]:
        """A stream of lines as they come: a watch, or a log that is followed."""
        answer = self._ask("GET", path, query=query, timeout=timeout or LONGEST_SECONDS)
        rest = b""
        try:
            for piece in answer.stream(None):
                *whole, rest = (rest + piece).split(b"\n")
                yield from whole
        except (HTTPError, OSError) as error:
            raise ClusterError(0, unreachable(self.host, error)) from None
        finally:
            answer.close()
        if rest:
            yield rest

    def run_in(self, namespace: str, pod: str, container: str, script: str) -> str:
        """What a shell script that is run in a container says.

        Raises:
            ClusterError: it cannot be run there, or fails.
        """
        words = {"command": ["sh", "-c", script], "container": container, "stdout": "true", "stderr": "true"}
        url = f"{self.host}{place('Pod', namespace, pod)}/exec?{urllib.parse.urlencode(words, doseq=True)}"
        headers = {"authorization": self._token} if self._token else {}
        try:
            shell = WSClient(self.configuration, re.sub("^http", "ws", url), headers, True)
            try:
                shell.run_forever(timeout=EXEC_SECONDS)
                ended = not shell.is_open()
                said, wrong, result = (str(shell.read_channel(channel)) for channel in (1, 2, 3))
            finally:
                shell.close()
        except WebSocketBadStatusException as error:
            status = int(error.status_code)
            message = f"nothing can be run in {pod}: {explain(status, str(error), self.host)}"
            raise ClusterError(status, message) from None
        except (WebSocketException, OSError) as error:
            raise ClusterError(0, f"the shell in {pod} has ended: {error or type(error).__name__}") from None
        if not ended:
            raise ClusterError(0, f"a script in {pod} was not over after {EXEC_SECONDS:g} s")
        if '"Success"' not in result:
            raise ClusterError(0, f"a script in {pod} failed: {result or 'the shell has ended'} {wrong}".strip())
        return said
