//! Admission: what changes or refuses a write between its decoding and its storing.
//!
//! A plugin sees one object at a time and the caches; it must not write to the store.

use async_trait::async_trait;
use pagurus_controlplane_api::status::ApiError;
use pagurus_controlplane_schema::table::Resource;
use serde_json::Value;

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
        self.subresource.is_none() && self.resource.group == group && self.resource.plural == resource
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
