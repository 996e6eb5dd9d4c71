//! Which fields are written although they are empty. The published facts tell required from optional, but not whether an
//! optional field is a pointer (an explicit zero survives), a plain value (zero is dropped) or always written; the lists
//! here say so where the rule of thumb is wrong. They were checked against a running server's answers.

/// Structs held by value, by field name: written as `{}` (or with their own always-written fields) when empty.
const VALUE_STRUCTS: &[&str] = &[
    "metadata",
    "spec",
    "status",
    "template",
    "strategy",
    "updateStrategy",
    "state",
    "lastState",
    "nodeInfo",
    "daemonEndpoints",
    "kubeletEndpoint",
    "source",
    "loadBalancer",
    "deprecatedSource",
    "regarding",
    "involvedObject",
    "devices",
    "acceptedNames",
    "preferredVersion",
    "userInfo",
    "jobTemplate",
];

/// Struct fields that go against `VALUE_STRUCTS` or against required-means-value: by value (true) or by pointer (false).
const STRUCTS: &[(&str, &str, bool)] = &[
    ("Container", "resources", true),
    ("EphemeralContainer", "resources", true),
    ("PersistentVolumeClaimSpec", "resources", true),
    ("Endpoint", "conditions", true),
    ("NetworkPolicySpec", "podSelector", true),
    ("TokenReviewStatus", "user", true),
    ("IngressServiceBackend", "port", true),
    ("ReplicationControllerSpec", "template", false),
    ("CustomResourceSubresources", "status", false),
    ("DaemonSetSpec", "selector", false),
    ("DeploymentSpec", "selector", false),
    ("ReplicaSetSpec", "selector", false),
    ("StatefulSetSpec", "selector", false),
    ("ScaleIOPersistentVolumeSource", "secretRef", false),
    ("ScaleIOVolumeSource", "secretRef", false),
    ("PodTemplate", "template", true),
    ("AdmissionResponse", "status", false),
    ("EphemeralVolumeSource", "volumeClaimTemplate", false),
];

/// Optional numbers and booleans held by value: zero is dropped. (`*` is any type.)
const VALUE_SCALARS: &[(&str, &str)] = &[
    ("*", "minReadySeconds"),
    ("*", "numberAvailable"),
    ("*", "numberUnavailable"),
    ("*", "updatedNumberScheduled"),
    ("*", "readyReplicas"),
    ("*", "unavailableReplicas"),
    ("*", "updatedReplicas"),
    ("*", "fullyLabeledReplicas"),
    ("DeploymentStatus", "availableReplicas"),
    ("ReplicaSetStatus", "availableReplicas"),
    ("ReplicationControllerStatus", "availableReplicas"),
    ("StatefulSetStatus", "currentReplicas"),
    ("HorizontalPodAutoscalerStatus", "currentReplicas"),
    ("DeploymentStatus", "replicas"),
    ("ScaleSpec", "replicas"),
    ("DaemonSetStatus", "observedGeneration"),
    ("DeploymentStatus", "observedGeneration"),
    ("ReplicaSetStatus", "observedGeneration"),
    ("StatefulSetStatus", "observedGeneration"),
    ("ReplicationControllerStatus", "observedGeneration"),
    ("PodDisruptionBudgetStatus", "observedGeneration"),
    ("ValidatingAdmissionPolicyStatus", "observedGeneration"),
    ("PodCondition", "observedGeneration"),
    ("PodStatus", "observedGeneration"),
    ("Condition", "observedGeneration"),
    ("CustomResourceDefinitionCondition", "observedGeneration"),
    ("CustomResourceDefinitionStatus", "observedGeneration"),
    ("HorizontalPodAutoscalerCondition", "observedGeneration"),
    ("DeploymentSpec", "paused"),
    ("TokenReviewStatus", "authenticated"),
    ("SubjectAccessReviewStatus", "denied"),
    ("JobStatus", "active"),
    ("JobStatus", "failed"),
    ("JobStatus", "succeeded"),
    ("*", "partition"),
    ("*", "readOnly"),
    ("Container", "stdin"),
    ("Container", "stdinOnce"),
    ("Container", "tty"),
    ("EphemeralContainer", "stdin"),
    ("EphemeralContainer", "stdinOnce"),
    ("EphemeralContainer", "tty"),
    ("EphemeralContainerCommon", "stdin"),
    ("EphemeralContainerCommon", "stdinOnce"),
    ("EphemeralContainerCommon", "tty"),
    ("ContainerImage", "sizeBytes"),
    ("ContainerPort", "hostPort"),
    ("ContainerStateTerminated", "signal"),
    ("Event", "count"),
    ("EventSeries", "count"),
    ("Event", "deprecatedCount"),
    ("*", "chapAuthDiscovery"),
    ("*", "chapAuthSession"),
    ("NodeSpec", "unschedulable"),
    ("PodSpec", "hostIPC"),
    ("PodSpec", "hostNetwork"),
    ("PodSpec", "hostPID"),
    ("Probe", "failureThreshold"),
    ("Probe", "initialDelaySeconds"),
    ("Probe", "periodSeconds"),
    ("Probe", "successThreshold"),
    ("Probe", "timeoutSeconds"),
    ("*", "sslEnabled"),
    ("ServicePort", "nodePort"),
    ("ServiceSpec", "healthCheckNodePort"),
    ("ServiceSpec", "publishNotReadyAddresses"),
    ("ResourcePolicyRule", "clusterScope"),
    ("ServiceBackendPort", "number"),
    ("DeviceSubRequest", "count"),
    ("ExactDeviceRequest", "count"),
    ("PriorityClass", "globalDefault"),
    ("CustomResourceColumnDefinition", "priority"),
    ("CustomResourceDefinitionSpec", "preserveUnknownFields"),
    ("CustomResourceDefinitionVersion", "deprecated"),
    ("JSONSchemaProps", "exclusiveMaximum"),
    ("JSONSchemaProps", "exclusiveMinimum"),
    ("JSONSchemaProps", "nullable"),
    ("JSONSchemaProps", "uniqueItems"),
    ("JSONSchemaProps", "x-kubernetes-embedded-resource"),
    ("JSONSchemaProps", "x-kubernetes-int-or-string"),
    ("ObjectMeta", "generation"),
    ("Status", "code"),
    ("StatusDetails", "retryAfterSeconds"),
    ("APIServiceSpec", "insecureSkipTLSVerify"),
    ("PodLogOptions", "follow"),
    ("PodLogOptions", "previous"),
    ("PodLogOptions", "timestamps"),
    ("PodLogOptions", "insecureSkipTLSVerifyBackend"),
    ("ListOptions", "watch"),
    ("ListOptions", "allowWatchBookmarks"),
    ("ListOptions", "limit"),
    ("*", "stderr"),
    ("PodExecOptions", "stdin"),
    ("PodExecOptions", "stdout"),
    ("PodExecOptions", "tty"),
    ("PodAttachOptions", "stdin"),
    ("PodAttachOptions", "stdout"),
    ("PodAttachOptions", "tty"),
];

/// `readOnly` and others that are pointers although a `*` row of `VALUE_SCALARS` says value.
const POINTER_SCALARS: &[(&str, &str)] = &[
    ("AzureDiskVolumeSource", "readOnly"),
    ("CSIVolumeSource", "readOnly"),
    ("RollingUpdateStatefulSetStrategy", "partition"),
];

/// Optional strings that are pointers: an explicit empty string survives.
const POINTER_STRINGS: &[(&str, &str)] = &[
    ("PersistentVolumeClaimSpec", "storageClassName"),
    ("PersistentVolumeClaimSpec", "volumeMode"),
    ("PersistentVolumeClaimSpec", "volumeAttributesClassName"),
    ("PersistentVolumeSpec", "volumeMode"),
    ("PersistentVolumeSpec", "volumeAttributesClassName"),
    ("PersistentVolumeClaimStatus", "currentVolumeAttributesClassName"),
    ("HostPathVolumeSource", "type"),
    ("IngressSpec", "ingressClassName"),
    ("*", "appProtocol"),
    ("*", "hostnameOverride"),
    ("EndpointPort", "name"),
    ("Endpoint", "hostname"),
    ("Endpoint", "nodeName"),
    ("ResourceSliceSpec", "nodeName"),
    ("Device", "nodeName"),
    ("Endpoint", "zone"),
    ("*", "preemptionPolicy"),
    ("*", "runtimeClassName"),
    ("*", "fsGroupChangePolicy"),
    ("*", "supplementalGroupsPolicy"),
    ("*", "seLinuxChangePolicy"),
    ("*", "mountPropagation"),
    ("*", "recursiveReadOnly"),
    ("*", "procMount"),
    ("*", "localhostProfile"),
    ("*", "stopSignal"),
    ("GRPCAction", "service"),
    ("*", "internalTrafficPolicy"),
    ("*", "ipFamilyPolicy"),
    ("*", "loadBalancerClass"),
    ("*", "trafficDistribution"),
    ("*", "nodeAffinityPolicy"),
    ("*", "nodeTaintsPolicy"),
    ("*", "completionMode"),
    ("*", "managedBy"),
    ("*", "podReplacementPolicy"),
    ("*", "failedIndexes"),
    ("*", "succeededIndexes"),
    ("*", "timeZone"),
    ("*", "unhealthyPodEvictionPolicy"),
    ("*", "propagationPolicy"),
    ("Preconditions", "uid"),
    ("Preconditions", "resourceVersion"),
    ("LeaseSpec", "holderIdentity"),
    ("LeaseSpec", "preferredHolder"),
    ("LeaseSpec", "strategy"),
    ("*", "failurePolicy"),
    ("*", "matchPolicy"),
    ("*", "sideEffects"),
    ("*", "reinvocationPolicy"),
    ("*", "parameterNotFoundAction"),
    ("WebhookClientConfig", "url"),
    ("ServiceReference", "path"),
    ("*", "fsGroupPolicy"),
    ("StorageClass", "reclaimPolicy"),
    ("StorageClass", "volumeBindingMode"),
    ("VolumeAttachmentSource", "persistentVolumeName"),
    ("NetworkPolicyPort", "protocol"),
    ("*", "pathType"),
    ("*", "resourceClaimName"),
    ("*", "resourceClaimTemplateName"),
    ("TypedObjectReference", "namespace"),
    ("IngressClassParametersReference", "scope"),
    ("IngressClassParametersReference", "namespace"),
    ("IngressClassParametersReference", "apiGroup"),
    ("AzureDiskVolumeSource", "fsType"),
    ("AzureDiskVolumeSource", "kind"),
    ("AzureDiskVolumeSource", "cachingMode"),
    ("CSIVolumeSource", "fsType"),
    ("ClusterTrustBundleProjection", "name"),
    ("ClusterTrustBundleProjection", "signerName"),
    ("PodFailurePolicyOnExitCodesRequirement", "containerName"),
    ("HPAScalingRules", "selectPolicy"),
    ("*", "gmsaCredentialSpec"),
    ("*", "gmsaCredentialSpecName"),
    ("*", "runAsUserName"),
    ("Container", "restartPolicy"),
    ("*", "initiatorName"),
    ("*", "deprecationWarning"),
    ("*", "x-kubernetes-list-type"),
    ("*", "x-kubernetes-map-type"),
    ("ValidationRule", "reason"),
    ("Validation", "reason"),
    ("Rule", "scope"),
    ("RuleWithOperations", "scope"),
    ("NamedRuleWithOperations", "scope"),
    ("PodDNSConfigOption", "value"),
    ("DeviceAttribute", "string"),
    ("DeviceAttribute", "version"),
    ("PodLogOptions", "stream"),
    ("APIServiceSpec", "caBundle"),
    ("LoadBalancerIngress", "ipMode"),
    ("EndpointAddress", "nodeName"),
    ("DeviceConstraint", "matchAttribute"),
    ("DeviceConstraint", "distinctAttribute"),
];

/// Fields that are written although they are optional.
const ALWAYS: &[(&str, &str)] = &[
    ("PodDisruptionBudgetStatus", "disruptionsAllowed"),
    ("PodDisruptionBudgetStatus", "currentHealthy"),
    ("PodDisruptionBudgetStatus", "desiredHealthy"),
    ("PodDisruptionBudgetStatus", "expectedPods"),
    ("ControllerRevision", "revision"),
    ("StatefulSetOrdinals", "start"),
    ("PriorityClass", "value"),
    ("FlowSchemaSpec", "matchingPrecedence"),
    ("QueuingConfiguration", "queues"),
    ("QueuingConfiguration", "handSize"),
    ("QueuingConfiguration", "queueLengthLimit"),
    ("StatefulSetStatus", "availableReplicas"),
    ("HorizontalPodAutoscalerStatus", "currentMetrics"),
    ("EndpointSlice", "ports"),
    ("EndpointSlice", "endpoints"),
    ("ClusterRole", "rules"),
    ("Role", "rules"),
    ("DeviceClaim", "requests"),
    ("CSINodeSpec", "drivers"),
    ("CustomResourceDefinitionStatus", "conditions"),
    ("CustomResourceDefinitionStatus", "storedVersions"),
    ("TokenRequestStatus", "token"),
    ("TokenRequestSpec", "audiences"),
];

/// Pointers that are written as `null` when absent.
const NULLABLE: &[(&str, &str)] = &[
    ("HTTPIngressPath", "pathType"),
    ("TypedLocalObjectReference", "apiGroup"),
    ("TypedObjectReference", "apiGroup"),
    ("TokenRequestSpec", "expirationSeconds"),
    ("TokenRequestSpec", "boundObjectRef"),
    ("io.k8s.api.admissionregistration.v1.MutatingWebhook", "sideEffects"),
    ("io.k8s.api.admissionregistration.v1.ValidatingWebhook", "sideEffects"),
];

/// Times, quantities and numbers-or-strings held by value: written when zero (`null`, `"0"`, `0`).
const VALUE_LEAVES: &[&str] = &[
    "lastTransitionTime",
    "lastUpdateTime",
    "lastProbeTime",
    "lastHeartbeatTime",
    "firstTimestamp",
    "lastTimestamp",
    "deprecatedFirstTimestamp",
    "deprecatedLastTimestamp",
    "eventTime",
    "lastObservedTime",
    "startedAt",
    "finishedAt",
    "expirationTimestamp",
    "divisor",
    "targetPort",
    "describedObject",
];

/// The strings of event reporters, written empty in core events only.
const EVENT_STRINGS: &[&str] = &["reportingComponent", "reportingInstance"];

/// Types whose declared defaults the server does not apply as static defaults (it computes them per kind).
pub(super) fn no_default(bare: &str) -> bool {
    matches!(bare, "ReplicationControllerSpec" | "LocalObjectReference")
}

/// Required fields that are dropped when empty all the same, and their flags.
const DROPPED: &[(&str, &str, &str)] =
    &[("IPAddressSpec", "parentRef", "p"), ("ValidatingAdmissionPolicyBindingSpec", "validationActions", "")];

/// The presence flag: `w` always written, `n` null when absent, `p` pointer, empty for dropped-when-zero.
pub(super) fn flag(full: &str, field: &str, kind: &str, required: bool) -> &'static str {
    let bare = full.rsplit('.').next().unwrap_or(full);
    let listed =
        |rows: &[(&str, &str)]| rows.iter().any(|(t, f)| *f == field && [bare, full, "*"].contains(t));
    if let Some((_, _, flag)) = DROPPED.iter().find(|(t, f, _)| *t == bare && *f == field) {
        return flag;
    }
    if listed(NULLABLE) {
        return "n";
    }
    if listed(ALWAYS) || (full == "io.k8s.api.core.v1.Event" && EVENT_STRINGS.contains(&field)) {
        return "w";
    }
    if field == "apiVersion" || field == "kind" {
        return if required { "w" } else { "" };
    }
    let letter = kind.as_bytes().first().copied().unwrap_or_default();
    let pointer = match letter {
        b'O' => return object_flag(bare, field, required),
        b'J' | b'E' => return "p",
        b'T' if field == "creationTimestamp" => return "",
        _ if required => return "w",
        b'[' | b'{' | b'B' => false,
        b'T' | b'M' | b'q' | b'x' | b'R' | b'D' if VALUE_LEAVES.contains(&field) => return "w",
        b'T' | b'M' | b'q' | b'x' | b'R' | b'D' => true,
        b's' => listed(POINTER_STRINGS),
        _ => listed(POINTER_SCALARS) || !listed(VALUE_SCALARS),
    };
    if pointer { "p" } else { "" }
}

fn object_flag(bare: &str, field: &str, required: bool) -> &'static str {
    let by_value = match STRUCTS.iter().find(|(t, f, _)| *t == bare && *f == field) {
        Some((_, _, by_value)) => *by_value,
        None => required || VALUE_STRUCTS.contains(&field),
    };
    match (by_value, required) {
        (true, _) => "w",
        (false, true) => "n",
        (false, false) => "p",
    }
}
