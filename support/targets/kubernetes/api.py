"""The API server of a cluster: plain objects in and out, and one clear sentence for whatever it does not do."""

import contextlib
import json
import re
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from kubernetes import client, config
from kubernetes.stream import stream
from urllib3.exceptions import HTTPError

from support.asking import Order, Response
from support.errors import SuiteError

Object = dict[str, Any]
"""An object of the API as its manifest has it."""
MANAGER = "dynamo-fault-tolerance"
"""Field manager of what is applied, and the value of the label :data:`MANAGED` on all that the suite makes."""
MANAGED = "app.kubernetes.io/managed-by"
ANSWER_SECONDS = 15.0
EXEC_SECONDS = 20.0
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
    "Deployment": ("/apis/apps/v1", "deployments", True),
    "Role": ("/apis/rbac.authorization.k8s.io/v1", "roles", True),
    "RoleBinding": ("/apis/rbac.authorization.k8s.io/v1", "rolebindings", True),
    "EndpointSlice": ("/apis/discovery.k8s.io/v1", "endpointslices", True),
    "CustomResourceDefinition": ("/apis/apiextensions.k8s.io/v1", "customresourcedefinitions", False),
    "DynamoWorkerMetadata": ("/apis/nvidia.com/v1alpha1", "dynamoworkermetadatas", True),
}
"""Kind -> its group and version, its name in paths, and whether it lies in a namespace."""


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
            f"the cluster at {host} does not know who asks (401): the credentials of KUBECONFIG are wrong or have "
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
            missing = "KUBECONFIG is not set, and this is no pod of a cluster"
            where = f"KUBECONFIG={kubeconfig}" if kubeconfig else missing
            raise ClusterError(0, f"{where}: {error}; name a kubeconfig file that kubectl can use") from None
        self.configuration.connection_pool_maxsize = 40  # logs that are followed keep one each
        self.configuration.retries = 1  # a second attempt where a kept connection turned out to be closed
        self.host = str(self.configuration.host)
        self._client = client.ApiClient(self.configuration)
        self._exec = threading.Lock()

    # -- one call

    def _send(
        self,
        method: str,
        path: str,
        body: Any = None,
        query: Mapping[str, Any] | None = None,
        content: str = "application/json",
        timeout: float = ANSWER_SECONDS,
        accept: str = "application/json",
    ) -> Any:
        """The raw answer.

        Raises:
            ClusterError: says what is wrong and what to do.
        """
        try:
            answer, _, _ = self._client.call_api(
                path,
                method,
                query_params=list((query or {}).items()),
                header_params={"Accept": accept, "Content-Type": content},
                body=json.dumps(body) if content == APPLY else body,
                auth_settings=["BearerToken"],
                _preload_content=False,
                _request_timeout=timeout,
            )
        except client.ApiException as error:
            text = error.body.decode("utf-8", "replace") if isinstance(error.body, bytes) else str(error.body or "")
            raise ClusterError(int(error.status or 0), explain(int(error.status or 0), text, self.host)) from None
        except (HTTPError, OSError) as error:
            reason = getattr(error, "reason", None) or error
            message = f"the cluster at {self.host} does not answer: {reason}; see that it runs and KUBECONFIG names it"
            raise ClusterError(0, message) from None
        return answer

    def call(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        """An answer as JSON; the options are ``query``, ``content`` and ``timeout``.

        Raises:
            ClusterError: see there.
        """
        return json.loads(self._send(method, path, body, **options).data)

    def proxy(self, namespace: str, pod: str, port: int, order: Order, timeout: float) -> Response:
        """What a port of a pod answers to an order, by way of the API server.

        Raises:
            OSError: nothing there takes it, or there is no such pod; ConnectionRefusedError where that is why.
        """
        method, path, body, headers = order
        there = f"{place('Pod', namespace, pod)}:{port}/proxy{path}"
        try:
            answer, status, _ = self._client.call_api(
                there,
                method,
                header_params=dict(headers),
                body=None if body is None else json.loads(body),
                auth_settings=["BearerToken"],
                _preload_content=False,
                _request_timeout=timeout,
            )
            content = bytes(answer.data)
        except client.ApiException as error:
            status, content = int(error.status or 0), error.body or b""
            content = content if isinstance(content, bytes) else str(content).encode()
        except (HTTPError, OSError) as error:
            raise OSError(f"no answer by way of {self.host}: {error}") from None
        _see_carried(status, content)
        return Response(status, content)

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """An object; None when there is none of that name."""
        try:
            return dict(self.call("GET", place(kind, namespace, name)))
        except ClusterError as error:
            if error.status == 404 and "namespaces " not in str(error)[:12]:
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
        self.call("PATCH", place(kind, namespace, name), {"metadata": {"annotations": dict(notes)}}, content=MERGE)

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
        answer = self._send("GET", "/version")
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
            "token": mine.get_api_key_with_prefix("authorization"),
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
        answer = self._send("GET", path, query=query, timeout=timeout or 3600.0, accept="*/*")
        rest = b""
        try:
            for piece in answer.stream(None):
                *whole, rest = (rest + piece).split(b"\n")
                yield from whole
        except (HTTPError, OSError) as error:
            raise ClusterError(0, f"the cluster at {self.host} broke off: {error}") from None
        finally:
            answer.close()
        if rest:
            yield rest

    def run_in(self, namespace: str, pod: str, container: str, script: str) -> str:
        """What a shell script that is run in a container says.

        Raises:
            ClusterError: it cannot be run there, or fails.
        """
        with self._exec:  # the library turns its client into one of web sockets for as long as it begins
            api = client.CoreV1Api(client.ApiClient(self.configuration))
            try:
                shell = stream(
                    api.connect_get_namespaced_pod_exec,
                    pod,
                    namespace,
                    container=container,
                    command=["sh", "-c", script],
                    stderr=True,
                    stdin=False,
                    stdout=True,
                    tty=False,
                    _preload_content=False,
                )
            except client.ApiException as error:
                message = f"nothing can be run in {pod}: {error.reason or error.status}"
                raise ClusterError(int(error.status or 0), message) from None
        shell.run_forever(timeout=EXEC_SECONDS)
        if shell.is_open():
            shell.close()
            raise ClusterError(0, f"a script in {pod} was not over after {EXEC_SECONDS:g} s")
        said = str(shell.read_stdout(timeout=0))
        if status := shell.returncode:
            raise ClusterError(0, f"a script in {pod} ended with status {status}: {shell.read_stderr(timeout=0)}")
        return said
