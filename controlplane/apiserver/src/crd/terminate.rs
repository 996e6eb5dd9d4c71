//! The end of a definition: all its objects are deleted before it goes.

use std::sync::Arc;
use std::time::Duration;

use pagurus_controlplane_api::key::GroupVersionResource;
use pagurus_controlplane_api::status::ApiError;
use serde_json::{Value, json};
use tracing::warn;

use super::establish;
use crate::cache::Cache;
use crate::engine::Engine;
use crate::request::UserInfo;
use crate::resources::extensions::{CLEANUP, set_condition};
use crate::resources::fields::Fields;

/// How long to wait for objects that something holds.
const PATIENCE: Duration = Duration::from_secs(1);

/// Deletes a definition's objects, waits until they are gone, and lets go of the definition. Tries until it is done or the definition is
/// another one.
pub(super) async fn run(engine: Arc<Engine>, name: String, uid: String) {
    let cancelled = engine.cancelled();
    let ending = async {
        loop {
            match attempt(&engine, &name, &uid).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    warn!(definition = name, %error, "a definition's objects cannot be deleted, trying again")
                }
            }
            tokio::time::sleep(PATIENCE).await;
        }
    };
    tokio::select! {
        () = cancelled.cancelled() => {}
        () = ending => {}
    }
}

/// Whether there is nothing left to do.
async fn attempt(engine: &Arc<Engine>, name: &str, uid: &str) -> Result<bool, ApiError> {
    let definition = match engine.get(&establish::definitions(), None, name).await {
        Ok(definition) => definition,
        Err(error) if error.code == 404 => return Ok(true),
        Err(error) => return Err(error),
    };
    if definition.text("metadata.uid") != uid {
        return Ok(true);
    }
    let (group, plural) = (definition.text("spec.group"), definition.text("spec.names.plural"));
    let left = match engine.kind(group, plural) {
        // Its names were never accepted, so there never was an object.
        None => 0,
        Some(kind) => {
            say(engine, name, true, "InstanceDeletionInProgress", "CustomResource deletion is in progress")
                .await?;
            let resource = &kind.resource;
            let served = served_version(&definition).unwrap_or(&resource.version);
            delete_all(engine, &kind.cache, &GroupVersionResource::new(group, served, plural)).await?
        }
    };
    if left > 0 {
        let message = format!("could not confirm zero CustomResources remaining: {left} left");
        say(engine, name, true, "InstanceDeletionCheck", &message).await?;
        return Ok(false);
    }
    release(engine, name, uid).await?;
    Ok(true)
}

fn served_version(definition: &Value) -> Option<&str> {
    definition.items("spec.versions").iter().find(|v| v.flag("served")).map(|v| v.text("name"))
}

/// Deletes every object; how many are still there.
async fn delete_all(
    engine: &Arc<Engine>,
    cache: &Arc<Cache>,
    resource: &GroupVersionResource,
) -> Result<usize, ApiError> {
    for object in cache.current().await.map_err(ApiError::from)?.objects.values() {
        let key = &object.key;
        let options = json!({"preconditions": {"uid": object.uid}, "propagationPolicy": "Background"});
        let user = UserInfo::server();
        match engine.delete(resource, key.namespace.as_deref(), &key.name, &options, &user).await {
            Ok(_) => {}
            // Somebody else was faster.
            Err(error) if matches!(error.code, 404 | 409) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(cache.current().await.map_err(ApiError::from)?.objects.len())
}

async fn say(
    engine: &Arc<Engine>,
    name: &str,
    holds: bool,
    reason: &str,
    message: &str,
) -> Result<(), ApiError> {
    let change = |definition: &mut Value| set_condition(definition, "Terminating", holds, reason, message);
    establish::write_status(engine, name, change).await.map(drop)
}

/// Takes the finalizer off, which is the end of the definition unless others hold it.
async fn release(engine: &Arc<Engine>, name: &str, uid: &str) -> Result<(), ApiError> {
    let resource = establish::definitions();
    say(engine, name, false, "InstanceDeletionCompleted", "removed all instances").await?;
    let mut definition = engine.get(&resource, None, name).await?;
    if definition.text("metadata.uid") != uid {
        return Ok(());
    }
    if let Some(list) = definition.pointer_mut("/metadata/finalizers").and_then(Value::as_array_mut) {
        list.retain(|finalizer| finalizer != CLEANUP);
    }
    engine.update(&resource, None, name, None, definition, &UserInfo::server()).await.map(drop)
}
