//! What types and fields mean, in the words of the published API. They come from `k8s-openapi`, which has them as
//! constants, and are gathered for one document at a time.

use std::borrow::Cow;

use k8s_openapi::api;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{self as meta, WatchEvent};
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::apimachinery::pkg::version::Info;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration;
use pagurus_controlplane_schema::openapi;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value};

/// The schemas of the types of one document, for their descriptions.
#[derive(Debug)]
pub(crate) struct Descriptions(Map<String, Value>);

impl Descriptions {
    /// Those of every type that the kinds of a group and version use.
    pub(crate) fn of_version(group: &str, version: &str) -> Self {
        let mut generator = SchemaGenerator::default();
        gather(&mut generator, group, version);
        Self(generator.take_definitions(false))
    }

    /// Those of what all groups share: metadata, options, statuses, discovery.
    fn of_machinery() -> Self {
        let mut generator = SchemaGenerator::default();
        add::<meta::APIGroupList>(&mut generator);
        add::<meta::APIResourceList>(&mut generator);
        add::<meta::APIVersions>(&mut generator);
        add::<meta::DeleteOptions>(&mut generator);
        add::<meta::LabelSelector>(&mut generator);
        add::<meta::ListMeta>(&mut generator);
        add::<meta::ObjectMeta>(&mut generator);
        add::<meta::MicroTime>(&mut generator);
        add::<meta::Patch>(&mut generator);
        add::<meta::Status>(&mut generator);
        add::<meta::Time>(&mut generator);
        add::<WatchEvent<RawExtension>>(&mut generator);
        add::<Quantity>(&mut generator);
        add::<RawExtension>(&mut generator);
        add::<Info>(&mut generator);
        add::<IntOrString>(&mut generator);
        // Selectors and conditions stand in the objects of these.
        gather(&mut generator, "networking.k8s.io", "v1");
        gather(&mut generator, "resource.k8s.io", "v1");
        gather(&mut generator, "authorization.k8s.io", "v1");
        Self(generator.take_definitions(false))
    }
}

/// Descriptions by package, as documents are made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Words;

impl openapi::Prose for Words {
    fn of_package(&self, package: &str) -> Box<dyn openapi::Descriptions + '_> {
        let version = package.rsplit('.').next().unwrap_or_default();
        if package.contains(".apimachinery.") {
            return Box::new(Descriptions::of_machinery());
        }
        let group = VERSIONS.iter().find(|(group, v)| {
            let short = group.split('.').next().filter(|g| !g.is_empty()).unwrap_or("core");
            *v == version && package.rsplit('.').nth(1) == Some(short)
        });
        // Packages that no served kind is of are used by jobs.
        let (group, version) = group.copied().unwrap_or(("batch", "v1"));
        Box::new(Descriptions::of_version(group, version))
    }
}

impl openapi::Descriptions for Descriptions {
    fn type_(&self, name: &str) -> Option<Cow<'_, str>> {
        self.0.get(name)?.get("description")?.as_str().map(Cow::Borrowed)
    }

    fn field(&self, type_name: &str, field: &str) -> Option<Cow<'_, str>> {
        let properties = self.0.get(type_name)?.get("properties")?;
        properties.get(field)?.get("description")?.as_str().map(Cow::Borrowed)
    }
}

/// Adds a type and every type it uses.
fn add<T: JsonSchema>(generator: &mut SchemaGenerator) {
    generator.subschema_for::<T>();
}

/// Defines the groups and versions there are, and what each adds.
macro_rules! versions {
    ($($group:literal $version:literal { $($kind:path),* $(,)? })*) => {
        const VERSIONS: &[(&str, &str)] = &[$(($group, $version)),*];

        fn gather(generator: &mut SchemaGenerator, group: &str, version: &str) {
            match (group, version) {
                $(($group, $version) => { $(add::<$kind>(generator);)* })*
                _ => {}
            }
        }
    };
}

versions! {
    "" "v1" {
        api::authentication::v1::TokenRequest,
        api::autoscaling::v1::Scale,
        api::core::v1::Binding,
        api::core::v1::ComponentStatus,
        api::core::v1::ConfigMap,
        api::core::v1::Endpoints,
        api::core::v1::Event,
        api::core::v1::LimitRange,
        api::core::v1::Namespace,
        api::core::v1::Node,
        api::core::v1::PersistentVolume,
        api::core::v1::PersistentVolumeClaim,
        api::core::v1::Pod,
        api::core::v1::PodTemplate,
        api::core::v1::ReplicationController,
        api::core::v1::ResourceQuota,
        api::core::v1::Secret,
        api::core::v1::Service,
        api::core::v1::ServiceAccount,
        api::policy::v1::Eviction,
        api::storage::v1::StorageClass,
    }
    "apiregistration.k8s.io" "v1" {
        apiregistration::v1::APIService,
    }
    "apps" "v1" {
        api::apps::v1::ControllerRevision,
        api::apps::v1::DaemonSet,
        api::apps::v1::Deployment,
        api::apps::v1::ReplicaSet,
        api::apps::v1::StatefulSet,
        api::autoscaling::v1::Scale,
    }
    "events.k8s.io" "v1" {
        api::events::v1::Event,
    }
    "authentication.k8s.io" "v1" {
        api::authentication::v1::TokenRequest,
        api::authentication::v1::SelfSubjectReview,
        api::authentication::v1::TokenReview,
    }
    "authorization.k8s.io" "v1" {
        api::authorization::v1::LocalSubjectAccessReview,
        api::authorization::v1::SelfSubjectAccessReview,
        api::authorization::v1::SelfSubjectRulesReview,
        api::authorization::v1::SubjectAccessReview,
    }
    "autoscaling" "v2" {
        api::autoscaling::v2::HorizontalPodAutoscaler,
    }
    "autoscaling" "v1" {
        api::autoscaling::v1::Scale,
        api::autoscaling::v1::HorizontalPodAutoscaler,
    }
    "batch" "v1" {
        api::batch::v1::CronJob,
        api::batch::v1::Job,
    }
    "certificates.k8s.io" "v1" {
        api::certificates::v1::CertificateSigningRequest,
        api::certificates::v1::ClusterTrustBundle,
        api::certificates::v1::PodCertificateRequest,
    }
    "networking.k8s.io" "v1" {
        api::networking::v1::IPAddress,
        api::networking::v1::Ingress,
        api::networking::v1::IngressClass,
        api::networking::v1::NetworkPolicy,
        api::networking::v1::ServiceCIDR,
    }
    "policy" "v1" {
        api::policy::v1::Eviction,
        api::policy::v1::PodDisruptionBudget,
    }
    "rbac.authorization.k8s.io" "v1" {
        api::rbac::v1::ClusterRole,
        api::rbac::v1::ClusterRoleBinding,
        api::rbac::v1::Role,
        api::rbac::v1::RoleBinding,
    }
    "storage.k8s.io" "v1" {
        api::storage::v1::CSIDriver,
        api::storage::v1::CSINode,
        api::storage::v1::CSIStorageCapacity,
        api::storage::v1::StorageClass,
        api::storage::v1::VolumeAttachment,
        api::storage::v1::VolumeAttributesClass,
    }
    "admissionregistration.k8s.io" "v1" {
        api::admissionregistration::v1::MutatingAdmissionPolicy,
        api::admissionregistration::v1::MutatingAdmissionPolicyBinding,
        api::admissionregistration::v1::MutatingWebhookConfiguration,
        api::admissionregistration::v1::ValidatingAdmissionPolicy,
        api::admissionregistration::v1::ValidatingAdmissionPolicyBinding,
        api::admissionregistration::v1::ValidatingWebhookConfiguration,
    }
    "apiextensions.k8s.io" "v1" {
        apiextensions::v1::CustomResourceDefinition,
    }
    "scheduling.k8s.io" "v1" {
        api::scheduling::v1::PriorityClass,
    }
    "coordination.k8s.io" "v1" {
        api::coordination::v1::Lease,
    }
    "node.k8s.io" "v1" {
        api::node::v1::RuntimeClass,
    }
    "discovery.k8s.io" "v1" {
        api::discovery::v1::EndpointSlice,
    }
    "resource.k8s.io" "v1" {
        api::resource::v1::DeviceClass,
        api::resource::v1::DeviceTaintRule,
        api::resource::v1::ResourceClaim,
        api::resource::v1::ResourceClaimTemplate,
        api::resource::v1::ResourceSlice,
    }
    "flowcontrol.apiserver.k8s.io" "v1" {
        api::flowcontrol::v1::FlowSchema,
        api::flowcontrol::v1::PriorityLevelConfiguration,
    }
    "storagemigration.k8s.io" "v1" {
        api::storagemigration::v1::StorageVersionMigration,
    }
}

#[cfg(test)]
mod tests {
    use pagurus_controlplane_schema::openapi::Descriptions as _;
    use pagurus_controlplane_schema::table::Table;

    use super::*;

    #[test]
    fn every_served_version_has_words() {
        for group in Table::builtin().groups() {
            for version in Table::builtin().versions(group) {
                assert!(VERSIONS.contains(&(group, version)), "{group}/{version}");
                assert!(!Descriptions::of_version(group, version).0.is_empty(), "{group}/{version}");
            }
        }
    }

    #[test]
    fn words_of_types_and_fields() {
        let descriptions = Descriptions::of_version("apps", "v1");
        assert!(
            descriptions
                .type_("io.k8s.api.apps.v1.Deployment")
                .is_some_and(|d| d.starts_with("Deployment enables"))
        );
        let nested = descriptions.field("io.k8s.api.core.v1.Container", "image");
        assert!(nested.is_some_and(|d| d.contains("image")));
        assert!(descriptions.field("io.k8s.api.core.v1.Container", "nope").is_none());
    }
}
