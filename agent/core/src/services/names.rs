//! Each name once in memory: namespaces, port names and zones repeat in almost every object.
//!
//! Must not know: what a name names.

use std::sync::Arc;

use crate::hash::HashSet;
use crate::services::ServiceName;

/// The names in use.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: HashSet<Arc<str>>,
    /// When there are so many, those that nobody uses any more go.
    limit: usize,
}

impl Names {
    /// The only copy of this name.
    pub(super) fn get(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.known.get(name) {
            return known.clone();
        }
        if self.known.len() >= self.limit {
            self.known.retain(|name| Arc::strong_count(name) > 1);
            self.limit = (self.known.len() * 2).max(1024);
        }
        let name: Arc<str> = name.into();
        self.known.insert(name.clone());
        name
    }

    /// The same for both parts of a Service's name.
    pub(super) fn service(&mut self, name: &ServiceName) -> ServiceName {
        ServiceName { namespace: self.get(&name.namespace), name: self.get(&name.name) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_once_and_forgotten_when_unused() {
        let mut names = Names::default();
        let one = names.get("http");
        assert!(Arc::ptr_eq(&one, &names.get("http")));
        for number in 0..5000 {
            names.get(&number.to_string());
        }
        assert!(names.known.len() <= 1024);
        assert!(Arc::ptr_eq(&one, &names.get("http")));
    }
}
