//! Who may delete what cannot be read: those who may do that and not just delete.

use std::sync::Arc;

use async_trait::async_trait;
use pagurus_controlplane_api::status::ApiError;

use super::{Attributes, Operation, Plugin};
use crate::authz::{self, Authorizer, Decision};

const VERB: &str = "unsafe-delete-ignore-read-errors";
const OPTION: &str = "ignoreStoreReadErrorWithClusterBreakingPotential";

/// Deletions with the option need the verb as well.
pub(super) struct UnsafeDelete {
    pub(super) authorizer: Arc<Authorizer>,
}

#[async_trait]
impl Plugin for UnsafeDelete {
    fn name(&self) -> &'static str {
        "UnsafeDelete"
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), ApiError> {
        let unsafely = attributes.options.is_some_and(|options| options[OPTION] == true);
        if attributes.operation != Operation::Delete || !unsafely {
            return Ok(());
        }
        let resource = attributes.resource;
        let request = authz::Attributes {
            user: attributes.user,
            verb: VERB,
            is_resource: true,
            group: &resource.group,
            version: &resource.version,
            resource: &resource.plural,
            namespace: attributes.namespace.unwrap_or_default(),
            name: attributes.name,
            ..authz::Attributes::default()
        };
        if matches!(self.authorizer.decide(&request), Decision::Allow(_)) {
            return Ok(());
        }
        Err(attributes.forbidden(&format!("not permitted to do \"{VERB}\"")))
    }
}
