"""The fields of KubeRay's RayCluster and RayJob, with their types and limits, as JSON schemas of our own writing.

They name every field of ray.io/v1 as it stood in the middle of 2026, after KubeRay 1.6, and were compared with what
KubeRay's CRDs are generated from: raycluster_types.go and rayjob_types.go in ray-operator/apis/ray/v1 of
github.com/ray-project/kuberay. Of pods, services and the like, which Kubernetes defines, only the kind of value is
named here: its own schemas are in the package kubernetes-validate.
"""

from typing import Any

Schema = dict[str, Any]
TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
COUNT: Schema = {"type": "integer", "minimum": 0}
TRUTH: Schema = {"type": "boolean"}
TEXTS: Schema = {"type": "object", "additionalProperties": TEXT}
THINGS: Schema = {"type": "object"}


def fields(required: tuple[str, ...] = (), /, **known: Schema) -> Schema:
    """An object with these fields and no others."""
    return {"type": "object", "properties": known, "required": list(required), "additionalProperties": False}


def word(*choices: str) -> Schema:
    """One of these words."""
    return {"enum": list(choices)}


def every(item: Schema) -> Schema:
    """A list of such."""
    return {"type": "array", "items": item}


_POD = {"type": "object", "required": ["spec"]}
_IMAGE: dict[str, Schema] = {"image": TEXT, "imagePullPolicy": TEXT, "resources": THINGS, "env": every(THINGS)}
_RULES: dict[str, Schema] = {"ingressRules": every(THINGS), "egressRules": every(THINGS)}
_CREDENTIAL = fields(value=TEXT, valueFrom=THINGS)
_DELETION = fields(policy=word("DeleteCluster", "DeleteWorkers", "DeleteSelf", "DeleteNone"))
CLUSTER = fields(
    ("headGroupSpec",),
    rayVersion=TEXT,
    enableInTreeAutoscaling=TRUTH,
    suspend=TRUTH,
    managedBy=word("ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue"),
    headServiceAnnotations=TEXTS,
    upgradeStrategy=fields(type=word("Recreate", "None")),
    authOptions=fields(mode=word("disabled", "token"), secretName=TEXT, enableK8sTokenAuth=TRUTH),
    tlsOptions=fields(enabled=TRUTH),
    gcsFaultToleranceOptions=fields(
        backend=word("redis", "rocksdb"),
        redisAddress=TEXT,
        redisUsername=_CREDENTIAL,
        redisPassword=_CREDENTIAL,
        externalStorageNamespace=TEXT,
        storage=fields(
            claimName=TEXT,
            size={"type": ["string", "integer"]},
            storageClassName=TEXT,
            accessModes=every(TEXT),
            subPath=TEXT,
            deletionPolicy=word("DeleteWithCluster", "Retain"),
        ),
    ),
    historyServerOptions=fields(collectorOptions=fields(**_IMAGE)),
    networkPolicy=fields(
        mode=word("DenyAll", "DenyAllIngress", "DenyAllEgress"),
        head=fields(**_RULES),
        worker=fields(**_RULES),
        workerGroups=every(fields(("groupName",), groupName=TEXT, **_RULES)),
    ),
    autoscalerOptions=fields(
        **_IMAGE,
        envFrom=every(THINGS),
        volumeMounts=every(THINGS),
        securityContext=THINGS,
        command=every(TEXT),
        args=every(TEXT),
        idleTimeoutSeconds=COUNT,
        version=word("v1", "v2"),
        upscalingMode=word("Default", "Aggressive", "Conservative"),
    ),
    headGroupSpec=fields(
        ("template",),
        serviceType=word("ClusterIP", "NodePort", "LoadBalancer"),
        headService=THINGS,
        enableIngress=TRUTH,
        ingressOptions=fields(
            host=TEXT, path=TEXT, pathType=word("Exact", "Prefix", "ImplementationSpecific"), tls=every(THINGS)
        ),
        rayStartParams=TEXTS,
        template=_POD,
        resources=TEXTS,
        labels=TEXTS,
    ),
    workerGroupSpecs=every(
        fields(
            ("groupName", "minReplicas", "maxReplicas", "template"),
            groupName=TEXT,
            replicas=COUNT,
            minReplicas=COUNT,
            maxReplicas=COUNT,
            numOfHosts=COUNT,
            idleTimeoutSeconds=COUNT,
            priority=WHOLE,
            suspend=TRUTH,
            rayStartParams=TEXTS,
            scaleStrategy=fields(workersToDelete=every(TEXT)),
            template=_POD,
            resources=TEXTS,
            labels=TEXTS,
        )
    ),
)
JOB = fields(
    (),
    entrypoint=TEXT,
    submissionMode=word("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"),
    activeDeadlineSeconds=COUNT,
    preRunningDeadlineSeconds=COUNT,
    backoffLimit=COUNT,
    ttlSecondsAfterFinished=COUNT,
    shutdownAfterJobFinishes=TRUTH,
    runtimeEnvYAML=TEXT,
    jobId=TEXT,
    metadata=TEXTS,
    suspend=TRUTH,
    managedBy=word("ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue"),
    deletionStrategy=fields(
        onSuccess=_DELETION,
        onFailure=_DELETION,
        deletionRules=every(
            fields(
                ("policy", "condition"),
                policy=word("DeleteCluster", "DeleteWorkers", "DeleteSelf", "DeleteNone"),
                condition=fields(
                    jobStatus=word("SUCCEEDED", "FAILED"), jobDeploymentStatus=word("Failed"), ttlSeconds=COUNT
                ),
            )
        ),
    ),
    rayClusterSpec=CLUSTER,
    clusterSelector=TEXTS,
    submitterPodTemplate=_POD,
    submitterConfig=fields(backoffLimit=COUNT),
    entrypointNumCpus={"type": "number"},
    entrypointNumGpus={"type": "number"},
    entrypointResources=TEXT,
)


def resource(kind: str, spec: Schema) -> Schema:
    """A resource of KubeRay's as it is written in a file."""
    return fields(
        ("apiVersion", "kind", "metadata", "spec"),
        apiVersion=word("ray.io/v1"),
        kind=word(kind),
        metadata={"type": "object", "required": ["name"], "properties": {"name": TEXT, "labels": TEXTS}},
        spec=spec,
    )


SCHEMAS = {"RayCluster": resource("RayCluster", CLUSTER), "RayJob": resource("RayJob", JOB)}
