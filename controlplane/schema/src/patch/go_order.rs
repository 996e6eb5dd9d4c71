//! The order in which the fields of an object stand in the API's definition, which messages show and which decides what is objected to
//! first. It is the order of the protobuf tags but where later fields were put among earlier ones. It must not know values.

use crate::table::{Field, Type};

const CONTAINER: &str = "ports envFrom env resources resizePolicy restartPolicy restartPolicyRules volumeMounts volumeDevices \
    livenessProbe readinessProbe startupProbe lifecycle terminationMessagePath terminationMessagePolicy imagePullPolicy securityContext";

/// Runs of fields that stand one after the other although their tags do not, by type.
const MOVED: &[(&str, &str)] = &[
    ("Container", CONTAINER),
    ("EphemeralContainer", CONTAINER),
    (
        "PodSpec",
        "volumes initContainers containers ephemeralContainers restartPolicy terminationGracePeriodSeconds \
        activeDeadlineSeconds dnsPolicy nodeSelector serviceAccountName serviceAccount \
        automountServiceAccountToken nodeName hostNetwork hostPID hostIPC shareProcessNamespace \
        securityContext",
    ),
    ("VolumeMount", "name readOnly recursiveReadOnly mountPath"),
    (
        "PodSecurityContext",
        "seLinuxOptions windowsOptions runAsUser runAsGroup runAsNonRoot supplementalGroups \
        supplementalGroupsPolicy fsGroup",
    ),
    (
        "SecurityContext",
        "seLinuxOptions windowsOptions runAsUser runAsGroup runAsNonRoot readOnlyRootFilesystem \
        allowPrivilegeEscalation procMount",
    ),
    (
        "ServiceSpec",
        "clusterIP clusterIPs type externalIPs sessionAffinity loadBalancerIP loadBalancerSourceRanges \
        externalName externalTrafficPolicy healthCheckNodePort publishNotReadyAddresses \
        sessionAffinityConfig ipFamilies ipFamilyPolicy",
    ),
    ("ServicePort", "name protocol appProtocol port"),
    ("ConfigMap", "metadata immutable data"),
    ("Secret", "metadata immutable data stringData type"),
    ("OwnerReference", "apiVersion kind name uid"),
    ("PersistentVolumeClaimSpec", "accessModes selector resources"),
    ("NodeSpec", "podCIDR podCIDRs providerID unschedulable taints configSource externalID"),
    ("ReplicaSetSpec", "replicas minReadySeconds selector"),
    ("ReplicationControllerSpec", "replicas minReadySeconds selector"),
    (
        "ReplicaSetStatus",
        "fullyLabeledReplicas readyReplicas availableReplicas terminatingReplicas observedGeneration",
    ),
    (
        "DeploymentStatus",
        "updatedReplicas readyReplicas availableReplicas unavailableReplicas terminatingReplicas conditions",
    ),
    ("DeploymentCondition", "status lastUpdateTime lastTransitionTime reason"),
    ("IngressSpec", "ingressClassName defaultBackend tls rules"),
    (
        "JobSpec",
        "activeDeadlineSeconds podFailurePolicy successPolicy backoffLimit backoffLimitPerIndex \
        maxFailedIndexes selector",
    ),
    ("HTTPIngressPath", "path pathType backend"),
    ("APIResource", "name singularName namespaced"),
    (
        "Info",
        "major minor emulationMajor emulationMinor minCompatibilityMajor minCompatibilityMinor gitVersion \
        gitCommit gitTreeState buildDate goVersion compiler platform",
    ),
    ("CronJobSpec", "schedule timeZone startingDeadlineSeconds"),
];

/// The fields of a type in the order of the API's definition.
pub(crate) fn fields(type_: &Type) -> Vec<&Field> {
    let mut fields: Vec<&Field> = type_.fields.iter().collect();
    // `kind` and `apiVersion` have no tags and come first, `kind` before `apiVersion`.
    fields.sort_by(|a, b| a.proto_path.cmp(&b.proto_path).then_with(|| b.json_name.cmp(&a.json_name)));
    let moved = MOVED.iter().find(|(name, _)| *name == type_.short_name()).map_or("", |(_, moved)| moved);
    let moved: Vec<&str> = moved.split(' ').collect();
    for pair in moved.windows(2) {
        let at = |name: &str| fields.iter().position(|field| &*field.json_name == name);
        if let (Some(before), Some(from)) = (at(pair[0]), at(pair[1])) {
            let field = fields.remove(from);
            fields.insert(if from < before { before } else { before + 1 }, field);
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::{MOVED, fields};
    use crate::table::Table;

    fn names(full: &str) -> Vec<&'static str> {
        let table = Table::builtin();
        let id = table.type_named(full).expect("a type of the table");
        fields(table.type_(id)).iter().map(|field| &*field.json_name).collect()
    }

    #[test]
    fn fields_stand_as_in_the_definition() {
        assert_eq!(
            names("io.k8s.apimachinery.pkg.apis.meta.v1.OwnerReference"),
            ["apiVersion", "kind", "name", "uid", "controller", "blockOwnerDeletion"]
        );
        assert_eq!(
            names("io.k8s.api.core.v1.VolumeMount")[..4],
            ["name", "readOnly", "recursiveReadOnly", "mountPath"]
        );
        let container = names("io.k8s.api.core.v1.Container");
        assert_eq!(
            container[..8],
            ["name", "image", "command", "args", "workingDir", "ports", "envFrom", "env"]
        );
        assert_eq!(container[container.len() - 4..], ["securityContext", "stdin", "stdinOnce", "tty"]);
        assert_eq!(
            names("io.k8s.api.core.v1.ConfigMap"),
            ["kind", "apiVersion", "metadata", "immutable", "data", "binaryData"]
        );
    }

    #[test]
    fn every_name_is_one_of_the_table() {
        for (type_, moved) in MOVED {
            let found = Table::builtin().types().any(|(_, t)| {
                t.short_name() == *type_ && moved.split(' ').all(|name| t.field(name).is_some())
            });
            assert!(found, "{type_}");
        }
    }
}
