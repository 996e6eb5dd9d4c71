//! The engine's caches, as the steps around the engine see them.

use std::sync::{Arc, Weak};

use async_trait::async_trait;

use crate::cache::Cached;
use crate::engine::Engine;
use crate::objects::{Objects, Stored};

/// The caches of an engine. It holds the engine weakly, as the engine holds those that look through it.
#[derive(Debug, Clone)]
pub struct EngineObjects(Weak<Engine>);

impl EngineObjects {
    /// Looks into that engine's caches.
    pub fn new(engine: &Arc<Engine>) -> Self {
        Self(Arc::downgrade(engine))
    }
}

#[async_trait]
impl Objects for EngineObjects {
    async fn fresh(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Stored> {
        let cache = self.0.upgrade()?.cache(group, resource)?;
        let snapshot = match cache.current().await {
            Ok(snapshot) => snapshot,
            Err(error) => {
                tracing::warn!(group, resource, %error, "cannot read the store, deciding by the cache");
                cache.snapshot()
            }
        };
        snapshot.get(some(namespace), name).map(|cached| stored(cached))
    }

    fn get(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Stored> {
        let cache = self.0.upgrade()?.cache(group, resource)?;
        cache.get(some(namespace), name).map(|cached| stored(&cached))
    }

    fn list(&self, group: &str, resource: &str, namespace: &str) -> Vec<Stored> {
        let cache = self.0.upgrade().and_then(|engine| engine.cache(group, resource));
        let cached = cache.map(|cache| cache.list(some(namespace))).unwrap_or_default();
        cached.iter().map(|cached| stored(cached)).collect()
    }

    fn list_where(
        &self,
        group: &str,
        resource: &str,
        namespace: &str,
        field: &str,
        value: &str,
    ) -> Vec<Stored> {
        let cache = self.0.upgrade().and_then(|engine| engine.cache(group, resource));
        let cached = cache.map(|cache| cache.list(some(namespace))).unwrap_or_default();
        cached
            .iter()
            .filter(|cached| cached.field(field) == Some(value))
            .map(|cached| stored(cached))
            .collect()
    }

    fn generation(&self, group: &str, resource: &str) -> u64 {
        let cache = self.0.upgrade().and_then(|engine| engine.cache(group, resource));
        cache.map(|cache| cache.revision()).unwrap_or_default()
    }
}

fn some(namespace: &str) -> Option<&str> {
    (!namespace.is_empty()).then_some(namespace)
}

fn stored(cached: &Cached) -> Stored {
    Stored {
        namespace: cached.key.namespace.clone().unwrap_or_default(),
        name: cached.key.name.clone(),
        revision: cached.revision,
        bytes: cached.bytes.clone(),
    }
}
