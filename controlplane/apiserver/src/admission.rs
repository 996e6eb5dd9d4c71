//! Admission: what changes or refuses a write between its decoding and its storing.
//!
//! A plugin sees one object at a time and the caches; it must not write to the store.

mod certificates;
mod classes;
mod escalation;
mod limit_ranger;
mod namespace_lifecycle;
mod pod_resize;
mod priority;
mod resource_quota;
mod service_account;
mod tolerations;
mod unsafe_delete;

use std::sync::Arc;

use async_trait::async_trait;
use pagurus_controlplane_api::status::ApiError;
use pagurus_controlplane_schema::table::Resource;
use serde_json::{Map, Value};

use crate::authz::Authorizer;
use crate::objects::Objects;
use crate::request::{UserInfo, Warnings};

/// The kinds of writes that admission tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the words")]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

/// One write, as plugins see it.
#[derive(Debug)]
pub struct Attributes<'a> {
    /// What happens to the object.
    pub operation: Operation,
    /// The resource written to.
    pub resource: &'a Resource,
    /// The subresource, such as `status`.
    pub subresource: Option<&'a str>,
    /// The namespace of the request, none for what is cluster-wide.
    pub namespace: Option<&'a str>,
    /// The object's name; empty where the server is to make one.
    pub name: &'a str,
    /// The object to be stored; none for deletions.
    pub object: Option<&'a mut Value>,
    /// The object that is stored now; none for creations.
    pub old: Option<&'a Value>,
    /// The create, update, patch or delete options of the request.
    pub options: Option<&'a Value>,
    /// Who asks.
    pub user: &'a UserInfo,
    /// Whether nothing will be stored.
    pub dry_run: bool,
    /// Where to put warnings for the client.
    pub warnings: &'a Warnings,
}

impl Attributes<'_> {
    /// Whether the write goes to that resource itself and not to a subresource.
    pub fn is(&self, group: &str, resource: &str) -> bool {
        self.subresource.is_none() && &*self.resource.group == group && &*self.resource.plural == resource
    }

    /// The refusal of this write, for that reason.
    pub fn forbidden(&self, why: &str) -> ApiError {
        let of_object = self.object.as_deref().and_then(|object| object.pointer("/metadata/name"));
        let name = if self.name.is_empty() {
            of_object.and_then(Value::as_str).unwrap_or_default()
        } else {
            self.name
        };
        ApiError::forbidden(&self.resource.group, &self.resource.plural, name, why)
    }

    /// The object's spec.
    pub fn spec_mut(&mut self) -> Option<&mut Map<String, Value>> {
        self.object.as_deref_mut()?.get_mut("spec")?.as_object_mut()
    }
}

/// One rule. `admit` may change the object, `validate` runs after all changes and may only refuse.
#[async_trait]
pub trait Plugin: Send + Sync + 'static {
    /// The plugin's upstream name.
    fn name(&self) -> &'static str;

    /// Changes the object, or refuses it.
    async fn admit(&self, _attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
        Ok(())
    }

    /// Refuses the object, or not.
    async fn validate(&self, _attributes: &Attributes<'_>) -> Result<(), ApiError> {
        Ok(())
    }
}

/// The plugins in their order.
#[derive(Default)]
pub struct Chain {
    plugins: Vec<Box<dyn Plugin>>,
}

impl Chain {
    /// A chain of those plugins.
    pub fn new(plugins: Vec<Box<dyn Plugin>>) -> Self {
        Self { plugins }
    }

    /// The plugins that are always on, in upstream's order, with the check that nobody grants what they do not hold.
    pub fn standard(objects: &Arc<dyn Objects>, authorizer: &Arc<Authorizer>) -> Self {
        let objects = || objects.clone();
        Self::new(vec![
            Box::new(namespace_lifecycle::NamespaceLifecycle { objects: objects() }),
            Box::new(limit_ranger::LimitRanger { objects: objects() }),
            Box::new(service_account::ServiceAccount { objects: objects() }),
            Box::new(tolerations::TaintNodesByCondition),
            Box::new(priority::Priority { objects: objects() }),
            Box::new(tolerations::DefaultTolerationSeconds),
            Box::new(classes::DefaultStorageClass { objects: objects() }),
            Box::new(classes::StorageObjectInUseProtection),
            Box::new(classes::RuntimeClass { objects: objects() }),
            Box::new(classes::DefaultIngressClass { objects: objects() }),
            Box::new(pod_resize::PodResize { objects: objects() }),
            Box::new(certificates::CertificateApproval { authorizer: authorizer.clone() }),
            Box::new(certificates::CertificateSigning { authorizer: authorizer.clone() }),
            Box::new(certificates::CertificateSubjectRestriction),
            Box::new(escalation::NoEscalation { authorizer: authorizer.clone() }),
            Box::new(unsafe_delete::UnsafeDelete { authorizer: authorizer.clone() }),
            // Last: what is admitted here is counted as there.
            Box::new(resource_quota::ResourceQuota::new(objects())),
        ])
    }

    /// Runs the changing half.
    pub async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
        for plugin in &self.plugins {
            plugin.admit(attributes).await?;
        }
        Ok(())
    }

    /// Runs the refusing half.
    pub async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), ApiError> {
        for plugin in &self.plugins {
            plugin.validate(attributes).await?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.plugins.iter().map(|p| p.name())).finish()
    }
}

#[cfg(test)]
mod trial {
    //! Runs one plugin on one write.

    use std::sync::LazyLock;

    use pagurus_controlplane_schema::table::Table;

    use super::*;

    static USER: LazyLock<UserInfo> = LazyLock::new(|| UserInfo::authenticated("u", []));
    static WARNINGS: LazyLock<Warnings> = LazyLock::new(Warnings::default);

    /// A write to a resource, given as group, version and plural.
    pub(super) fn attributes<'a>(
        operation: Operation,
        (group, version, plural): (&str, &str, &str),
        namespace: Option<&'a str>,
        name: &'a str,
        object: &'a mut Value,
    ) -> Attributes<'a> {
        Attributes {
            operation,
            resource: Table::builtin().resource(group, version, plural).expect("a resource"),
            subresource: None,
            namespace,
            name,
            object: Some(object),
            old: None,
            options: None,
            user: &USER,
            dry_run: false,
            warnings: &WARNINGS,
        }
    }

    /// The refusal's message, empty if there is none.
    pub(super) async fn admit(plugin: &dyn Plugin, mut attributes: Attributes<'_>) -> String {
        plugin.admit(&mut attributes).await.err().map(|e| e.message).unwrap_or_default()
    }

    /// The refusal's message of the second half, empty if there is none.
    pub(super) async fn validate(plugin: &dyn Plugin, attributes: Attributes<'_>) -> String {
        plugin.validate(&attributes).await.err().map(|e| e.message).unwrap_or_default()
    }
}
