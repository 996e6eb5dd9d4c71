//! The shapes of a pod specification and of what it is made of.

use super::{Member, NODE_SELECTOR_TERM, PROFILE, SECURITY_CONTEXT, Shape, TOLERATION};
use Shape::{Any, Flag, List, Metadata, Number, Pointer, Quantity, Selector, Struct, Text};

/// A pod template, as a Job has it.
pub(crate) const TEMPLATE: &[Member] = &[("", "", Metadata), ("spec", "Spec", Struct(SPEC))];

/// A pod specification.
pub(crate) const SPEC: &[Member] = &[
    ("volumes", "Volumes", List(VOLUME)),
    ("initContainers", "InitContainers", List(CONTAINER)),
    ("containers", "Containers", List(CONTAINER)),
    ("ephemeralContainers", "EphemeralContainers", Any),
    ("restartPolicy", "RestartPolicy", Text),
    ("terminationGracePeriodSeconds", "TerminationGracePeriodSeconds", Any),
    ("activeDeadlineSeconds", "ActiveDeadlineSeconds", Any),
    ("dnsPolicy", "DNSPolicy", Text),
    ("nodeSelector", "NodeSelector", Any),
    ("serviceAccountName", "ServiceAccountName", Text),
    ("serviceAccount", "DeprecatedServiceAccount", Text),
    ("automountServiceAccountToken", "AutomountServiceAccountToken", Any),
    ("nodeName", "NodeName", Text),
    ("hostNetwork", "HostNetwork", Flag),
    ("hostPID", "HostPID", Flag),
    ("hostIPC", "HostIPC", Flag),
    ("shareProcessNamespace", "ShareProcessNamespace", Any),
    ("securityContext", "SecurityContext", Pointer(POD_SECURITY)),
    ("imagePullSecrets", "ImagePullSecrets", List(NAME)),
    ("hostname", "Hostname", Text),
    ("subdomain", "Subdomain", Text),
    ("affinity", "Affinity", Pointer(AFFINITY)),
    ("schedulerName", "SchedulerName", Text),
    ("tolerations", "Tolerations", List(TOLERATION)),
    ("hostAliases", "HostAliases", List(&[("ip", "IP", Text), ("hostnames", "Hostnames", Any)])),
    ("priorityClassName", "PriorityClassName", Text),
    ("priority", "Priority", Any),
    (
        "dnsConfig",
        "DNSConfig",
        Pointer(&[
            ("nameservers", "Nameservers", Any),
            ("searches", "Searches", Any),
            ("options", "Options", List(&[("name", "Name", Text), ("value", "Value", Any)])),
        ]),
    ),
    ("readinessGates", "ReadinessGates", List(&[("conditionType", "ConditionType", Text)])),
    ("runtimeClassName", "RuntimeClassName", Any),
    ("enableServiceLinks", "EnableServiceLinks", Any),
    ("preemptionPolicy", "PreemptionPolicy", Any),
    ("overhead", "Overhead", Any),
    (
        "topologySpreadConstraints",
        "TopologySpreadConstraints",
        List(&[
            ("maxSkew", "MaxSkew", Number),
            ("topologyKey", "TopologyKey", Text),
            ("whenUnsatisfiable", "WhenUnsatisfiable", Text),
            ("labelSelector", "LabelSelector", Selector),
            ("minDomains", "MinDomains", Any),
            ("nodeAffinityPolicy", "NodeAffinityPolicy", Any),
            ("nodeTaintsPolicy", "NodeTaintsPolicy", Any),
            ("matchLabelKeys", "MatchLabelKeys", Any),
        ]),
    ),
    ("setHostnameAsFQDN", "SetHostnameAsFQDN", Any),
    ("os", "OS", Pointer(NAME)),
    ("hostUsers", "HostUsers", Any),
    ("schedulingGates", "SchedulingGates", List(NAME)),
    (
        "resourceClaims",
        "ResourceClaims",
        List(&[
            ("name", "Name", Text),
            ("resourceClaimName", "ResourceClaimName", Any),
            ("resourceClaimTemplateName", "ResourceClaimTemplateName", Any),
        ]),
    ),
    ("resources", "Resources", Pointer(RESOURCES)),
    ("hostnameOverride", "HostnameOverride", Any),
    ("schedulingGroup", "SchedulingGroup", Any),
    ("evictionResponders", "EvictionResponders", Any),
];

const NAME: &[Member] = &[("name", "Name", Text)];
const NAME_VALUE: &[Member] = &[("name", "Name", Text), ("value", "Value", Text)];
const NAME_OPTIONAL: &[Member] = &[("name", "Name", Text), ("optional", "Optional", Any)];
const NAME_KEY: &[Member] = &[("name", "Name", Text), ("key", "Key", Text), ("optional", "Optional", Any)];

const RESOURCES: &[Member] = &[
    ("limits", "Limits", Any),
    ("requests", "Requests", Any),
    ("claims", "Claims", List(&[("name", "Name", Text), ("request", "Request", Text)])),
];

const POD_SECURITY: &[Member] = &[
    (
        "seLinuxOptions",
        "SELinuxOptions",
        Pointer(&[
            ("user", "User", Text),
            ("role", "Role", Text),
            ("type", "Type", Text),
            ("level", "Level", Text),
        ]),
    ),
    ("windowsOptions", "WindowsOptions", Any),
    ("runAsUser", "RunAsUser", Any),
    ("runAsGroup", "RunAsGroup", Any),
    ("runAsNonRoot", "RunAsNonRoot", Any),
    ("supplementalGroups", "SupplementalGroups", Any),
    ("supplementalGroupsPolicy", "SupplementalGroupsPolicy", Any),
    ("fsGroup", "FSGroup", Any),
    ("sysctls", "Sysctls", List(NAME_VALUE)),
    ("fsGroupChangePolicy", "FSGroupChangePolicy", Any),
    ("seccompProfile", "SeccompProfile", Pointer(PROFILE)),
    ("appArmorProfile", "AppArmorProfile", Pointer(PROFILE)),
    ("seLinuxChangePolicy", "SELinuxChangePolicy", Any),
];

const REQUIRED: &str = "RequiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "PreferredDuringSchedulingIgnoredDuringExecution";
const REQUIRED_JSON: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED_JSON: &str = "preferredDuringSchedulingIgnoredDuringExecution";

const POD_TERM: &[Member] = &[
    ("labelSelector", "LabelSelector", Selector),
    ("namespaces", "Namespaces", Any),
    ("topologyKey", "TopologyKey", Text),
    ("namespaceSelector", "NamespaceSelector", Selector),
    ("matchLabelKeys", "MatchLabelKeys", Any),
    ("mismatchLabelKeys", "MismatchLabelKeys", Any),
];

const POD_AFFINITY: &[Member] = &[
    (REQUIRED_JSON, REQUIRED, List(POD_TERM)),
    (
        PREFERRED_JSON,
        PREFERRED,
        List(&[("weight", "Weight", Number), ("podAffinityTerm", "PodAffinityTerm", Struct(POD_TERM))]),
    ),
];

const AFFINITY: &[Member] = &[
    (
        "nodeAffinity",
        "NodeAffinity",
        Pointer(&[
            (
                REQUIRED_JSON,
                REQUIRED,
                Pointer(&[("nodeSelectorTerms", "NodeSelectorTerms", List(NODE_SELECTOR_TERM))]),
            ),
            (
                PREFERRED_JSON,
                PREFERRED,
                List(&[
                    ("weight", "Weight", Number),
                    ("preference", "Preference", Struct(NODE_SELECTOR_TERM)),
                ]),
            ),
        ]),
    ),
    ("podAffinity", "PodAffinity", Pointer(POD_AFFINITY)),
    ("podAntiAffinity", "PodAntiAffinity", Pointer(POD_AFFINITY)),
];

const FIELD_REF: &[Member] = &[("apiVersion", "APIVersion", Text), ("fieldPath", "FieldPath", Text)];
const RESOURCE_REF: &[Member] = &[
    ("containerName", "ContainerName", Text),
    ("resource", "Resource", Text),
    ("divisor", "Divisor", Quantity),
];

const CONTAINER: &[Member] = &[
    ("name", "Name", Text),
    ("image", "Image", Text),
    ("command", "Command", Any),
    ("args", "Args", Any),
    ("workingDir", "WorkingDir", Text),
    (
        "ports",
        "Ports",
        List(&[
            ("name", "Name", Text),
            ("hostPort", "HostPort", Number),
            ("containerPort", "ContainerPort", Number),
            ("protocol", "Protocol", Text),
            ("hostIP", "HostIP", Text),
        ]),
    ),
    (
        "envFrom",
        "EnvFrom",
        List(&[
            ("prefix", "Prefix", Text),
            ("configMapRef", "ConfigMapRef", Pointer(NAME_OPTIONAL)),
            ("secretRef", "SecretRef", Pointer(NAME_OPTIONAL)),
        ]),
    ),
    ("env", "Env", List(ENV)),
    ("resources", "Resources", Struct(RESOURCES)),
    (
        "resizePolicy",
        "ResizePolicy",
        List(&[("resourceName", "ResourceName", Text), ("restartPolicy", "RestartPolicy", Text)]),
    ),
    ("restartPolicy", "RestartPolicy", Any),
    ("restartPolicyRules", "RestartPolicyRules", Any),
    (
        "volumeMounts",
        "VolumeMounts",
        List(&[
            ("name", "Name", Text),
            ("readOnly", "ReadOnly", Flag),
            ("recursiveReadOnly", "RecursiveReadOnly", Any),
            ("mountPath", "MountPath", Text),
            ("subPath", "SubPath", Text),
            ("mountPropagation", "MountPropagation", Any),
            ("subPathExpr", "SubPathExpr", Text),
            ("bindMountOptions", "BindMountOptions", Any),
        ]),
    ),
    ("volumeDevices", "VolumeDevices", List(&[("name", "Name", Text), ("devicePath", "DevicePath", Text)])),
    ("livenessProbe", "LivenessProbe", Pointer(PROBE)),
    ("readinessProbe", "ReadinessProbe", Pointer(PROBE)),
    ("startupProbe", "StartupProbe", Pointer(PROBE)),
    (
        "lifecycle",
        "Lifecycle",
        Pointer(&[
            ("postStart", "PostStart", Pointer(HANDLER)),
            ("preStop", "PreStop", Pointer(HANDLER)),
            ("stopSignal", "StopSignal", Any),
        ]),
    ),
    ("terminationMessagePath", "TerminationMessagePath", Text),
    ("terminationMessagePolicy", "TerminationMessagePolicy", Text),
    ("imagePullPolicy", "ImagePullPolicy", Text),
    ("securityContext", "SecurityContext", Pointer(SECURITY_CONTEXT)),
    ("stdin", "Stdin", Flag),
    ("stdinOnce", "StdinOnce", Flag),
    ("tty", "TTY", Flag),
];

const ENV: &[Member] = &[
    ("name", "Name", Text),
    ("value", "Value", Text),
    (
        "valueFrom",
        "ValueFrom",
        Pointer(&[
            ("fieldRef", "FieldRef", Pointer(FIELD_REF)),
            ("resourceFieldRef", "ResourceFieldRef", Pointer(RESOURCE_REF)),
            ("configMapKeyRef", "ConfigMapKeyRef", Pointer(NAME_KEY)),
            ("secretKeyRef", "SecretKeyRef", Pointer(NAME_KEY)),
            (
                "fileKeyRef",
                "FileKeyRef",
                Pointer(&[
                    ("volumeName", "VolumeName", Text),
                    ("path", "Path", Text),
                    ("key", "Key", Text),
                    ("optional", "Optional", Any),
                ]),
            ),
        ]),
    ),
];

const EXEC: Member = ("exec", "Exec", Pointer(&[("command", "Command", Any)]));
const HTTP_GET: Member = (
    "httpGet",
    "HTTPGet",
    Pointer(&[
        ("path", "Path", Text),
        ("port", "Port", Number),
        ("host", "Host", Text),
        ("scheme", "Scheme", Text),
        ("httpHeaders", "HTTPHeaders", List(NAME_VALUE)),
        ("protocol", "Protocol", Any),
    ]),
);
const TCP_SOCKET: Member =
    ("tcpSocket", "TCPSocket", Pointer(&[("port", "Port", Number), ("host", "Host", Text)]));

const HANDLER: &[Member] =
    &[EXEC, HTTP_GET, TCP_SOCKET, ("sleep", "Sleep", Pointer(&[("seconds", "Seconds", Number)]))];

const PROBE: &[Member] = &[
    EXEC,
    HTTP_GET,
    TCP_SOCKET,
    (
        "grpc",
        "GRPC",
        Pointer(&[("port", "Port", Number), ("service", "Service", Any), ("mode", "Mode", Any)]),
    ),
    ("initialDelaySeconds", "InitialDelaySeconds", Number),
    ("timeoutSeconds", "TimeoutSeconds", Number),
    ("periodSeconds", "PeriodSeconds", Number),
    ("successThreshold", "SuccessThreshold", Number),
    ("failureThreshold", "FailureThreshold", Number),
    ("terminationGracePeriodSeconds", "TerminationGracePeriodSeconds", Any),
];

const KEY_PATHS: Shape =
    List(&[("key", "Key", Text), ("path", "Path", Text), ("mode", "Mode", Any), ("user", "User", Any)]);
const DOWNWARD_FILES: Shape = List(&[
    ("path", "Path", Text),
    ("fieldRef", "FieldRef", Pointer(FIELD_REF)),
    ("resourceFieldRef", "ResourceFieldRef", Pointer(RESOURCE_REF)),
    ("mode", "Mode", Any),
    ("user", "User", Any),
]);
const PROJECTION: Shape =
    Pointer(&[("name", "Name", Text), ("items", "Items", KEY_PATHS), ("optional", "Optional", Any)]);

const VOLUME: &[Member] = &[
    ("name", "Name", Text),
    ("hostPath", "HostPath", Pointer(&[("path", "Path", Text), ("type", "Type", Any)])),
    (
        "emptyDir",
        "EmptyDir",
        Pointer(&[("medium", "Medium", Text), ("sizeLimit", "SizeLimit", Any), ("mode", "Mode", Any)]),
    ),
    ("gcePersistentDisk", "GCEPersistentDisk", Any),
    ("awsElasticBlockStore", "AWSElasticBlockStore", Any),
    ("gitRepo", "GitRepo", Any),
    (
        "secret",
        "Secret",
        Pointer(&[
            ("secretName", "SecretName", Text),
            ("items", "Items", KEY_PATHS),
            ("defaultMode", "DefaultMode", Any),
            ("optional", "Optional", Any),
            ("defaultUser", "DefaultUser", Any),
        ]),
    ),
    (
        "nfs",
        "NFS",
        Pointer(&[("server", "Server", Text), ("path", "Path", Text), ("readOnly", "ReadOnly", Flag)]),
    ),
    ("iscsi", "ISCSI", Any),
    ("glusterfs", "Glusterfs", Any),
    (
        "persistentVolumeClaim",
        "PersistentVolumeClaim",
        Pointer(&[("claimName", "ClaimName", Text), ("readOnly", "ReadOnly", Flag)]),
    ),
    ("rbd", "RBD", Any),
    ("flexVolume", "FlexVolume", Any),
    ("cinder", "Cinder", Any),
    ("cephfs", "CephFS", Any),
    ("flocker", "Flocker", Any),
    (
        "downwardAPI",
        "DownwardAPI",
        Pointer(&[
            ("items", "Items", DOWNWARD_FILES),
            ("defaultMode", "DefaultMode", Any),
            ("defaultUser", "DefaultUser", Any),
        ]),
    ),
    ("fc", "FC", Any),
    ("azureFile", "AzureFile", Any),
    (
        "configMap",
        "ConfigMap",
        Pointer(&[
            ("name", "Name", Text),
            ("items", "Items", KEY_PATHS),
            ("defaultMode", "DefaultMode", Any),
            ("optional", "Optional", Any),
            ("defaultUser", "DefaultUser", Any),
        ]),
    ),
    ("vsphereVolume", "VsphereVolume", Any),
    ("quobyte", "Quobyte", Any),
    ("azureDisk", "AzureDisk", Any),
    ("photonPersistentDisk", "PhotonPersistentDisk", Any),
    ("projected", "Projected", Pointer(PROJECTED)),
    ("portworxVolume", "PortworxVolume", Any),
    ("scaleIO", "ScaleIO", Any),
    ("storageos", "StorageOS", Any),
    (
        "csi",
        "CSI",
        Pointer(&[
            ("driver", "Driver", Text),
            ("readOnly", "ReadOnly", Any),
            ("fsType", "FSType", Any),
            ("volumeAttributes", "VolumeAttributes", Any),
            ("nodePublishSecretRef", "NodePublishSecretRef", Pointer(NAME)),
        ]),
    ),
    ("ephemeral", "Ephemeral", Pointer(&[("volumeClaimTemplate", "VolumeClaimTemplate", Pointer(CLAIM))])),
    ("image", "Image", Pointer(&[("reference", "Reference", Text), ("pullPolicy", "PullPolicy", Text)])),
];

const PROJECTED: &[Member] = &[
    (
        "sources",
        "Sources",
        List(&[
            ("secret", "Secret", PROJECTION),
            ("downwardAPI", "DownwardAPI", Pointer(&[("items", "Items", DOWNWARD_FILES)])),
            ("configMap", "ConfigMap", PROJECTION),
            (
                "serviceAccountToken",
                "ServiceAccountToken",
                Pointer(&[
                    ("audience", "Audience", Text),
                    ("expirationSeconds", "ExpirationSeconds", Number),
                    ("path", "Path", Text),
                    ("user", "User", Any),
                ]),
            ),
            ("clusterTrustBundle", "ClusterTrustBundle", Any),
            ("podCertificate", "PodCertificate", Any),
        ]),
    ),
    ("defaultMode", "DefaultMode", Any),
    ("defaultUser", "DefaultUser", Any),
];

const CLAIM: &[Member] = &[("", "", Metadata), ("spec", "Spec", Struct(CLAIM_SPEC))];

/// What a claim to a volume asks for.
pub(crate) const CLAIM_SPEC: &[Member] = &[
    ("accessModes", "AccessModes", Any),
    ("selector", "Selector", Selector),
    ("resources", "Resources", Struct(&[("limits", "Limits", Any), ("requests", "Requests", Any)])),
    ("volumeName", "VolumeName", Text),
    ("storageClassName", "StorageClassName", Any),
    ("volumeMode", "VolumeMode", Any),
    ("dataSource", "DataSource", Any),
    ("dataSourceRef", "DataSourceRef", Any),
    ("volumeAttributesClassName", "VolumeAttributesClassName", Any),
];
