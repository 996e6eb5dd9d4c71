//! The strategies: what each kind does differently, by group. Pure functions over objects; must not know the engine, the store
//! or HTTP.

mod admission_registration;
mod apps;
mod autoscaling;
mod batch;
mod cells;
mod certificates;
pub(crate) mod columns;
mod coordination;
mod core;
mod deprecations;
mod discovery;
mod dynamic_resources;
pub(crate) mod extensions;
pub(crate) mod fields;
mod flow_control;
mod internal;
mod line_diff;
mod networking;
mod node_classes;
mod plain;
pub(crate) mod pod_spec;
mod policy;
mod rbac;
mod rules;
mod scheduling;
mod storage;
mod storage_migration;

pub(crate) use certificates::signing_request::decoded as signing_request_der;

use crate::strategy::{Generic, Strategy};

/// The strategy of a resource. Resources without rules of their own get the generic one.
pub fn strategy(group: &str, resource: &str) -> &'static dyn Strategy {
    match group {
        "" => core_strategy(resource),
        "apps" => match resource {
            "controllerrevisions" => &apps::controller_revision::ControllerRevisions,
            "daemonsets" => &apps::daemon_set::DaemonSets,
            "deployments" => &apps::deployment::Deployments,
            "replicasets" => &apps::replica_set::ReplicaSets,
            "statefulsets" => &apps::stateful_set::StatefulSets,
            _ => &Generic,
        },
        "batch" => match resource {
            "cronjobs" => &batch::cron_job::CronJobs,
            "jobs" => &batch::job::Jobs,
            _ => &Generic,
        },
        "rbac.authorization.k8s.io" => match resource {
            "clusterrolebindings" => &rbac::CLUSTER_ROLE_BINDINGS,
            "clusterroles" => &rbac::CLUSTER_ROLES,
            "rolebindings" => &rbac::ROLE_BINDINGS,
            "roles" => &rbac::ROLES,
            _ => &Generic,
        },
        _ => other_strategy(group, resource),
    }
}

fn core_strategy(resource: &str) -> &'static dyn Strategy {
    match resource {
        "configmaps" => &core::config_map::ConfigMaps,
        "endpoints" => &core::endpoints::Endpoints,
        "events" => &core::event::Events,
        "limitranges" => &core::limit_range::LimitRanges,
        "namespaces" => &core::namespace::Namespaces,
        "nodes" => &core::node::Nodes,
        "persistentvolumeclaims" => &core::persistent_volume_claim::PersistentVolumeClaims,
        "persistentvolumes" => &core::persistent_volume::PersistentVolumes,
        "pods" => &core::pod::Pods,
        "podtemplates" => &core::pod_template::PodTemplates,
        "replicationcontrollers" => &core::replication_controller::ReplicationControllers,
        "resourcequotas" => &core::resource_quota::ResourceQuotas,
        "secrets" => &core::secret::Secrets,
        "serviceaccounts" => &core::service_account::ServiceAccounts,
        "services" => &core::service::Services,
        _ => &Generic,
    }
}

fn other_strategy(group: &str, resource: &str) -> &'static dyn Strategy {
    match (group, resource) {
        ("admissionregistration.k8s.io", resource) => match resource {
            "mutatingwebhookconfigurations" => &admission_registration::MUTATING_WEBHOOKS,
            "validatingwebhookconfigurations" => &admission_registration::VALIDATING_WEBHOOKS,
            "validatingadmissionpolicies" => &admission_registration::VALIDATING_POLICIES,
            "mutatingadmissionpolicies" => &admission_registration::MUTATING_POLICIES,
            "validatingadmissionpolicybindings" => &admission_registration::VALIDATING_BINDINGS,
            _ => &admission_registration::MUTATING_BINDINGS,
        },
        ("apiextensions.k8s.io", "customresourcedefinitions") => &extensions::Definitions,
        ("apiregistration.k8s.io", "apiservices") => &extensions::API_SERVICES,
        ("autoscaling", "horizontalpodautoscalers") => &autoscaling::HORIZONTAL_POD_AUTOSCALERS,
        ("certificates.k8s.io", "certificatesigningrequests") => {
            &certificates::signing_request::SigningRequest
        }
        ("certificates.k8s.io", "clustertrustbundles") => &certificates::TRUST_BUNDLES,
        ("certificates.k8s.io", "podcertificaterequests") => &certificates::POD_REQUESTS,
        ("coordination.k8s.io", "leases") => &coordination::LEASES,
        ("discovery.k8s.io", "endpointslices") => &discovery::ENDPOINT_SLICES,
        ("events.k8s.io", "events") => &core::event::Events,
        ("flowcontrol.apiserver.k8s.io", "flowschemas") => &flow_control::FLOW_SCHEMAS,
        ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations") => &flow_control::PRIORITY_LEVELS,
        ("networking.k8s.io", resource) => match resource {
            "ingresses" => &networking::INGRESSES,
            "ingressclasses" => &networking::INGRESS_CLASSES,
            "ipaddresses" => &networking::IP_ADDRESSES,
            "networkpolicies" => &networking::NETWORK_POLICIES,
            "servicecidrs" => &networking::SERVICE_CIDRS,
            _ => &Generic,
        },
        ("node.k8s.io", "runtimeclasses") => &node_classes::RUNTIME_CLASSES,
        ("policy", "poddisruptionbudgets") => &policy::POD_DISRUPTION_BUDGETS,
        ("resource.k8s.io", resource) => match resource {
            "deviceclasses" => &dynamic_resources::DEVICE_CLASSES,
            "devicetaintrules" => &dynamic_resources::DEVICE_TAINT_RULES,
            "resourceclaims" => &dynamic_resources::CLAIMS,
            "resourceclaimtemplates" => &dynamic_resources::CLAIM_TEMPLATES,
            "resourceslices" => &dynamic_resources::SLICES,
            _ => &Generic,
        },
        ("scheduling.k8s.io", "priorityclasses") => &scheduling::PRIORITY_CLASSES,
        ("storage.k8s.io", resource) => match resource {
            "csidrivers" => &storage::CSI_DRIVERS,
            "csinodes" => &storage::CSI_NODES,
            "csistoragecapacities" => &storage::CSI_STORAGE_CAPACITIES,
            "storageclasses" => &storage::STORAGE_CLASSES,
            "volumeattachments" => &storage::VOLUME_ATTACHMENTS,
            "volumeattributesclasses" => &storage::VOLUME_ATTRIBUTES_CLASSES,
            _ => &Generic,
        },
        ("storagemigration.k8s.io", "storageversionmigrations") => &storage_migration::MIGRATIONS,
        _ => &Generic,
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod validation;
