//! What the columns of tables mean: for most a field of the API whose published description says it, for the rest a text
//! of their own. Facts only; must not know how rows are made.

use Words::{Field, Text};

/// Where a column's description comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Words {
    /// The description of a field of a type (without `io.k8s.api.`).
    Field(&'static str, &'static str),
    /// The text itself.
    Text(&'static str),
}

/// The type of everybody's metadata.
const METADATA: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// What a column of a resource means; `None` if it speaks for itself.
pub(crate) fn words(group: &str, plural: &str, column: &str) -> Option<Words> {
    match column {
        "Name" => return Some(Field(METADATA, "name")),
        "Age" | "Created At" => return Some(Field(METADATA, "creationTimestamp")),
        _ => {}
    }
    particular(group, plural).iter().find(|(name, _)| *name == column).map(|(_, words)| *words)
}

fn particular(group: &str, plural: &str) -> &'static [(&'static str, Words)] {
    match (group, plural) {
        ("", "configmaps") => &[("Data", Field("core.v1.ConfigMap", "data"))],
        ("", "endpoints") => &[("Endpoints", Field("core.v1.Endpoints", "subsets"))],
        ("", "events") => &[
            ("Last Seen", Field("core.v1.Event", "lastTimestamp")),
            ("Type", Field("core.v1.Event", "type")),
            ("Reason", Field("core.v1.Event", "reason")),
            ("Object", Field("core.v1.Event", "involvedObject")),
            ("Subobject", Field("core.v1.ObjectReference", "fieldPath")),
            ("Source", Field("core.v1.Event", "source")),
            ("Message", Field("core.v1.Event", "message")),
            ("First Seen", Field("core.v1.Event", "firstTimestamp")),
            ("Count", Field("core.v1.Event", "count")),
        ],
        ("", "namespaces") => &[("Status", Text("The status of the namespace"))],
        ("", "nodes") => &[
            ("Status", Text("The status of the node")),
            ("Roles", Text("The roles of the node")),
            ("Version", Field("core.v1.NodeSystemInfo", "kubeletVersion")),
            ("Internal-IP", Field("core.v1.NodeStatus", "addresses")),
            ("External-IP", Field("core.v1.NodeStatus", "addresses")),
            ("OS-Image", Field("core.v1.NodeSystemInfo", "osImage")),
            ("Kernel-Version", Field("core.v1.NodeSystemInfo", "kernelVersion")),
            ("Container-Runtime", Field("core.v1.NodeSystemInfo", "containerRuntimeVersion")),
        ],
        ("", "persistentvolumeclaims") => &[
            ("Status", Field("core.v1.PersistentVolumeClaimStatus", "phase")),
            ("Volume", Field("core.v1.PersistentVolumeClaimSpec", "volumeName")),
            ("Capacity", Field("core.v1.PersistentVolumeClaimStatus", "capacity")),
            ("Access Modes", Field("core.v1.PersistentVolumeClaimStatus", "accessModes")),
            ("StorageClass", Text("StorageClass of the pvc")),
            ("VolumeAttributesClass", Text("VolumeAttributesClass of the pvc")),
            ("VolumeMode", Field("core.v1.PersistentVolumeClaimSpec", "volumeMode")),
        ],
        ("", "persistentvolumes") => &[
            ("Capacity", Field("core.v1.PersistentVolumeSpec", "capacity")),
            ("Access Modes", Field("core.v1.PersistentVolumeSpec", "accessModes")),
            ("Reclaim Policy", Field("core.v1.PersistentVolumeSpec", "persistentVolumeReclaimPolicy")),
            ("Status", Field("core.v1.PersistentVolumeStatus", "phase")),
            ("Claim", Field("core.v1.PersistentVolumeSpec", "claimRef")),
            ("StorageClass", Text("StorageClass of the pv")),
            ("VolumeAttributesClass", Text("VolumeAttributesClass of the pv")),
            ("Reason", Field("core.v1.PersistentVolumeStatus", "reason")),
            ("VolumeMode", Field("core.v1.PersistentVolumeSpec", "volumeMode")),
        ],
        ("", "pods") => &[
            ("Ready", Text("The aggregate readiness state of this pod for accepting traffic.")),
            ("Status", Text("The aggregate status of the containers in this pod.")),
            (
                "Restarts",
                Text(
                    "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted.",
                ),
            ),
            ("IP", Field("core.v1.PodStatus", "podIP")),
            ("Node", Field("core.v1.PodSpec", "nodeName")),
            ("Nominated Node", Field("core.v1.PodStatus", "nominatedNodeName")),
            ("Readiness Gates", Field("core.v1.PodSpec", "readinessGates")),
        ],
        ("", "podtemplates") => &[
            ("Containers", Text("Names of each container in the template.")),
            ("Images", Text("Images referenced by each container in the template.")),
            ("Pod Labels", Text("The labels for the pod template.")),
        ],
        ("", "replicationcontrollers") => &[
            ("Desired", Field("core.v1.ReplicationControllerSpec", "replicas")),
            ("Current", Field("core.v1.ReplicationControllerStatus", "replicas")),
            ("Ready", Field("core.v1.ReplicationControllerStatus", "readyReplicas")),
            ("Containers", Text("Names of each container in the template.")),
            ("Images", Text("Images referenced by each container in the template.")),
            ("Selector", Field("core.v1.ReplicationControllerSpec", "selector")),
        ],
        ("", "resourcequotas") => &[
            (
                "Request",
                Text("Request represents a minimum amount of cpu/memory that a container may consume."),
            ),
            (
                "Limit",
                Text(
                    "Limits control the maximum amount of cpu/memory that a container may use independent of contention on the node.",
                ),
            ),
        ],
        ("", "secrets") => {
            &[("Type", Field("core.v1.Secret", "type")), ("Data", Field("core.v1.Secret", "data"))]
        }
        ("", "services") => &[
            ("Type", Field("core.v1.ServiceSpec", "type")),
            ("Cluster-IP", Field("core.v1.ServiceSpec", "clusterIP")),
            ("External-IP", Field("core.v1.ServiceSpec", "externalIPs")),
            ("Port(s)", Field("core.v1.ServiceSpec", "ports")),
            ("Selector", Field("core.v1.ServiceSpec", "selector")),
        ],
        ("admissionregistration.k8s.io", "mutatingwebhookconfigurations") => &[(
            "Webhooks",
            Text("Webhooks indicates the number of webhooks registered in this configuration"),
        )],
        ("admissionregistration.k8s.io", "validatingadmissionpolicies") => &[
            (
                "Validations",
                Text("Validations indicates the number of validation rules defined in this configuration"),
            ),
            ("ParamKind", Text("ParamKind specifies the kind of resources used to parameterize this policy")),
        ],
        ("admissionregistration.k8s.io", "validatingadmissionpolicybindings") => &[
            (
                "PolicyName",
                Text("PolicyName indicates the policy definition which the policy binding binded to"),
            ),
            ("ParamRef", Text("ParamRef indicates the param resource which sets the configuration param")),
        ],
        ("apps", "controllerrevisions") => &[
            ("Controller", Text("Controller of the object")),
            ("Revision", Field("apps.v1.ControllerRevision", "revision")),
        ],
        ("apps", "daemonsets") => &[
            ("Desired", Field("apps.v1.DaemonSetStatus", "desiredNumberScheduled")),
            ("Current", Field("apps.v1.DaemonSetStatus", "currentNumberScheduled")),
            ("Ready", Field("apps.v1.DaemonSetStatus", "numberReady")),
            ("Up-to-date", Field("apps.v1.DaemonSetStatus", "updatedNumberScheduled")),
            ("Available", Field("apps.v1.DaemonSetStatus", "numberAvailable")),
            ("Node Selector", Field("core.v1.PodSpec", "nodeSelector")),
            ("Containers", Text("Names of each container in the template.")),
            ("Images", Text("Images referenced by each container in the template.")),
            ("Selector", Field("apps.v1.DaemonSetSpec", "selector")),
        ],
        ("apps", "deployments") => &[
            ("Ready", Text("Number of the pod with ready state")),
            ("Up-to-date", Field("apps.v1.DeploymentStatus", "updatedReplicas")),
            ("Available", Field("apps.v1.DeploymentStatus", "availableReplicas")),
            ("Containers", Text("Names of each container in the template.")),
            ("Images", Text("Images referenced by each container in the template.")),
            ("Selector", Field("apps.v1.DeploymentSpec", "selector")),
        ],
        ("apps", "replicasets") => &[
            ("Desired", Field("apps.v1.ReplicaSetSpec", "replicas")),
            ("Current", Field("apps.v1.ReplicaSetStatus", "replicas")),
            ("Ready", Field("apps.v1.ReplicaSetStatus", "readyReplicas")),
            ("Containers", Text("Names of each container in the template.")),
            ("Images", Text("Images referenced by each container in the template.")),
            ("Selector", Field("apps.v1.ReplicaSetSpec", "selector")),
        ],
        ("apps", "statefulsets") => &[
            ("Ready", Text("Number of the pod with ready state")),
            ("Containers", Text("Names of each container in the template.")),
            ("Images", Text("Images referenced by each container in the template.")),
        ],
        ("autoscaling", "horizontalpodautoscalers") => &[
            ("Reference", Field("autoscaling.v2.HorizontalPodAutoscalerSpec", "scaleTargetRef")),
            ("Targets", Field("autoscaling.v2.HorizontalPodAutoscalerSpec", "metrics")),
            ("MinPods", Field("autoscaling.v2.HorizontalPodAutoscalerSpec", "minReplicas")),
            ("MaxPods", Field("autoscaling.v2.HorizontalPodAutoscalerSpec", "maxReplicas")),
            ("Replicas", Field("autoscaling.v2.HorizontalPodAutoscalerStatus", "currentReplicas")),
        ],
        ("batch", "cronjobs") => &[
            ("Schedule", Field("batch.v1.CronJobSpec", "schedule")),
            ("Timezone", Field("batch.v1.CronJobSpec", "timeZone")),
            ("Suspend", Field("batch.v1.CronJobSpec", "suspend")),
            ("Active", Field("batch.v1.CronJobStatus", "active")),
            ("Last Schedule", Field("batch.v1.CronJobStatus", "lastScheduleTime")),
            ("Containers", Text("Names of each container in the template.")),
            ("Images", Text("Images referenced by each container in the template.")),
            ("Selector", Field("batch.v1.JobSpec", "selector")),
        ],
        ("batch", "jobs") => &[
            ("Status", Text("Status of the job.")),
            ("Completions", Field("batch.v1.JobStatus", "succeeded")),
            ("Duration", Text("Time required to complete the job.")),
            ("Containers", Text("Names of each container in the template.")),
            ("Images", Text("Images referenced by each container in the template.")),
            ("Selector", Field("batch.v1.JobSpec", "selector")),
        ],
        ("coordination.k8s.io", "leases") => {
            &[("Holder", Field("coordination.v1.LeaseSpec", "holderIdentity"))]
        }
        ("discovery.k8s.io", "endpointslices") => &[
            ("AddressType", Field("discovery.v1.EndpointSlice", "addressType")),
            ("Ports", Field("discovery.v1.EndpointSlice", "ports")),
            ("Endpoints", Field("discovery.v1.EndpointSlice", "endpoints")),
        ],
        ("events.k8s.io", "events") => &[
            ("Last Seen", Field("core.v1.Event", "lastTimestamp")),
            ("Type", Field("core.v1.Event", "type")),
            ("Reason", Field("core.v1.Event", "reason")),
            ("Object", Field("core.v1.Event", "involvedObject")),
            ("Subobject", Field("core.v1.ObjectReference", "fieldPath")),
            ("Source", Field("core.v1.Event", "source")),
            ("Message", Field("core.v1.Event", "message")),
            ("First Seen", Field("core.v1.Event", "firstTimestamp")),
            ("Count", Field("core.v1.Event", "count")),
        ],
        ("flowcontrol.apiserver.k8s.io", "flowschemas") => &[
            ("PriorityLevel", Field("flowcontrol.v1.PriorityLevelConfigurationReference", "name")),
            ("MatchingPrecedence", Field("flowcontrol.v1.FlowSchemaSpec", "matchingPrecedence")),
            ("DistinguisherMethod", Field("flowcontrol.v1.FlowSchemaSpec", "distinguisherMethod")),
            ("MissingPL", Text("references a broken or non-existent PriorityLevelConfiguration")),
        ],
        ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations") => &[
            ("Type", Field("flowcontrol.v1.PriorityLevelConfigurationSpec", "type")),
            (
                "NominalConcurrencyShares",
                Field("flowcontrol.v1.LimitedPriorityLevelConfiguration", "nominalConcurrencyShares"),
            ),
            ("Queues", Field("flowcontrol.v1.QueuingConfiguration", "queues")),
            ("HandSize", Field("flowcontrol.v1.QueuingConfiguration", "handSize")),
            ("QueueLengthLimit", Field("flowcontrol.v1.QueuingConfiguration", "queueLengthLimit")),
        ],
        ("networking.k8s.io", "ingressclasses") => &[
            ("Controller", Text("Controller that is responsible for handling this class")),
            ("Parameters", Text("A reference to a resource with additional parameters")),
        ],
        ("networking.k8s.io", "ingresses") => &[
            (
                "Class",
                Text(
                    "The name of the IngressClass resource that should be used for additional configuration",
                ),
            ),
            ("Hosts", Text("Hosts that incoming requests are matched against before the ingress rule")),
            ("Address", Text("Address is a list containing ingress points for the load-balancer")),
            ("Ports", Text("Ports of TLS configurations that open")),
        ],
        ("networking.k8s.io", "ipaddresses") => {
            &[("ParentRef", Field("networking.v1.IPAddressSpec", "parentRef"))]
        }
        ("networking.k8s.io", "networkpolicies") => {
            &[("Pod-Selector", Field("networking.v1.NetworkPolicySpec", "podSelector"))]
        }
        ("policy", "poddisruptionbudgets") => &[
            ("Min Available", Text("The minimum number of pods that must be available.")),
            ("Max Unavailable", Text("The maximum number of pods that may be unavailable.")),
            ("Allowed Disruptions", Text("Calculated number of pods that may be disrupted at this time.")),
        ],
        ("rbac.authorization.k8s.io", "clusterrolebindings") => &[
            (
                "Role",
                Text(
                    "roleRef can only reference a ClusterRole in the global namespace. If the RoleRef cannot be resolved, the Authorizer must return an error.",
                ),
            ),
            ("Users", Text("Users in the clusterRoleBinding")),
            ("Groups", Text("Groups in the clusterRoleBinding")),
            ("ServiceAccounts", Text("ServiceAccounts in the clusterRoleBinding")),
        ],
        ("rbac.authorization.k8s.io", "rolebindings") => &[
            (
                "Role",
                Text(
                    "roleRef can reference a Role in the current namespace or a ClusterRole in the global namespace. If the RoleRef cannot be resolved, the Authorizer must return an error.",
                ),
            ),
            ("Users", Text("Users in the roleBinding")),
            ("Groups", Text("Groups in the roleBinding")),
            ("ServiceAccounts", Text("ServiceAccounts in the roleBinding")),
        ],
        ("resource.k8s.io", "resourceclaims") => {
            &[("State", Text("A summary of the current state (allocated, pending, reserved, etc.)."))]
        }
        ("resource.k8s.io", "resourceslices") => &[
            ("Node", Field("resource.v1.ResourceSliceSpec", "nodeName")),
            ("Driver", Field("resource.v1.ResourceSliceSpec", "driver")),
            ("Pool", Field("resource.v1.ResourcePool", "name")),
        ],
        ("scheduling.k8s.io", "priorityclasses") => &[
            ("Value", Field("scheduling.v1.PriorityClass", "value")),
            ("Global-Default", Field("scheduling.v1.PriorityClass", "globalDefault")),
            ("PreemptionPolicy", Field("scheduling.v1.PriorityClass", "preemptionPolicy")),
        ],
        ("storage.k8s.io", "csinodes") => {
            &[("Drivers", Text("Drivers indicates the number of CSI drivers registered on the node"))]
        }
        ("storage.k8s.io", "storageclasses") => &[
            ("Provisioner", Field("storage.v1.StorageClass", "provisioner")),
            ("ReclaimPolicy", Field("storage.v1.StorageClass", "reclaimPolicy")),
            ("VolumeBindingMode", Field("storage.v1.StorageClass", "volumeBindingMode")),
            ("AllowVolumeExpansion", Field("storage.v1.StorageClass", "allowVolumeExpansion")),
        ],
        ("storage.k8s.io", "volumeattributesclasses") => {
            &[("DriverName", Field("storage.v1.VolumeAttributesClass", "driverName"))]
        }
        _ => &[],
    }
}
