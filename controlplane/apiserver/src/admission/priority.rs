//! Priority: a pod's number comes from its class, and there is one default class.

use std::sync::Arc;

use async_trait::async_trait;
use pagurus_controlplane_api::status::ApiError;
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin};
use crate::objects::Objects;

const GROUP: &str = "scheduling.k8s.io";
const DEFAULT_PREEMPTION: &str = "PreemptLowerPriority";

/// See the module's description.
pub(super) struct Priority {
    pub(super) objects: Arc<dyn Objects>,
}

/// What a class gives to a pod.
struct Class {
    name: String,
    value: i64,
    preemption: String,
}

impl Class {
    fn from_value(value: &Value) -> Self {
        let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str);
        Self {
            name: text("/metadata/name").unwrap_or_default().to_owned(),
            value: value.get("value").and_then(Value::as_i64).unwrap_or_default(),
            preemption: text("/preemptionPolicy").unwrap_or(DEFAULT_PREEMPTION).to_owned(),
        }
    }
}

impl Priority {
    /// The lowest of the classes that call themselves default.
    fn default_class(&self) -> Option<Class> {
        let classes =
            self.objects.list(GROUP, "priorityclasses", "").into_iter().map(|stored| stored.parsed());
        let defaults = classes.filter(|class| class.get("globalDefault") == Some(&json!(true)));
        defaults.map(|class| Class::from_value(&class)).min_by_key(|class| class.value)
    }

    async fn class(&self, name: &str) -> Option<Class> {
        let found = match self.objects.get(GROUP, "priorityclasses", "", name) {
            Some(found) => Some(found),
            None => self.objects.fresh(GROUP, "priorityclasses", "", name).await,
        };
        found.map(|stored| Class::from_value(&stored.parsed()))
    }

    async fn admit_pod(&self, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
        let Some(spec) = attributes.spec_mut() else { return Ok(()) };
        let named = spec.get("priorityClassName").and_then(Value::as_str).unwrap_or_default().to_owned();
        let class = if named.is_empty() {
            let class = self.default_class();
            class.unwrap_or(Class {
                name: String::new(),
                value: 0,
                preemption: DEFAULT_PREEMPTION.to_owned(),
            })
        } else {
            match self.class(&named).await {
                Some(class) => class,
                None => {
                    let why = format!("no PriorityClass with name {named} was found");
                    return Err(attributes.forbidden(&why));
                }
            }
        };
        let Some(spec) = attributes.spec_mut() else { return Ok(()) };
        let given = spec.get("priority").and_then(Value::as_i64);
        let policy = spec.get("preemptionPolicy").and_then(Value::as_str).map(str::to_owned);
        if let Some(given) = given.filter(|given| *given != class.value) {
            let why = format!(
                "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {} from the given PriorityClass name",
                class.value
            );
            return Err(attributes.forbidden(&why));
        }
        if let Some(policy) = policy.filter(|policy| *policy != class.preemption) {
            let why = format!(
                "the string value of PreemptionPolicy ({policy}) must not be provided in pod spec; priority admission controller computed {} from the given PriorityClass name",
                class.preemption
            );
            return Err(attributes.forbidden(&why));
        }
        if !class.name.is_empty() {
            spec.insert("priorityClassName".to_owned(), json!(class.name));
        }
        spec.insert("priority".to_owned(), json!(class.value));
        spec.insert("preemptionPolicy".to_owned(), json!(class.preemption));
        Ok(())
    }
}

#[async_trait]
impl Plugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
        if !attributes.is("", "pods") {
            return Ok(());
        }
        match attributes.operation {
            Operation::Create => self.admit_pod(attributes).await,
            Operation::Update => {
                keep_stored(attributes);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), ApiError> {
        let writes = matches!(attributes.operation, Operation::Create | Operation::Update);
        if !attributes.is(GROUP, "priorityclasses") || !writes {
            return Ok(());
        }
        let is_default = |object: &Value| object.get("globalDefault") == Some(&json!(true));
        if !attributes.object.as_deref().is_some_and(is_default) {
            return Ok(());
        }
        match self.default_class() {
            Some(other) if other.name != attributes.name => Err(attributes.forbidden(&format!(
                "PriorityClass {} is already marked as default. Only one default can exist",
                other.name
            ))),
            _ => Ok(()),
        }
    }
}

/// An update that leaves the computed fields out keeps them.
fn keep_stored(attributes: &mut Attributes<'_>) {
    let Some(old) = attributes.old.and_then(|old| old.get("spec")) else { return };
    let Some(spec) = attributes.spec_mut() else { return };
    for field in ["priority", "preemptionPolicy"] {
        if spec.get(field).is_none_or(Value::is_null)
            && let Some(stored) = old.get(field).filter(|value| !value.is_null())
        {
            spec.insert(field.to_owned(), stored.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::trial::{admit, attributes};
    use super::*;
    use crate::objects::fake::FakeObjects;

    #[tokio::test]
    async fn pods_get_numbers() {
        let objects = Arc::new(FakeObjects::default());
        objects.put(
            "scheduling.k8s.io/priorityclasses",
            &json!({"metadata": {"name": "high"}, "value": 1000, "preemptionPolicy": "Never"}),
        );
        let plugin = Priority { objects: objects.clone() };
        let rows = [
            (json!({}), "", json!({"priority": 0, "preemptionPolicy": "PreemptLowerPriority"})),
            (
                json!({"priorityClassName": "high"}),
                "",
                json!({"priorityClassName": "high", "priority": 1000, "preemptionPolicy": "Never"}),
            ),
            (
                json!({"priorityClassName": "none"}),
                "pods \"p\" is forbidden: no PriorityClass with name none was found",
                json!({"priorityClassName": "none"}),
            ),
            (
                json!({"priority": 7}),
                "pods \"p\" is forbidden: the integer value of priority (7) must not be provided in pod spec; priority admission controller computed 0 from the given PriorityClass name",
                json!({"priority": 7}),
            ),
        ];
        for (spec, want, after) in rows {
            let mut pod = json!({"spec": spec});
            let attributes = attributes(Operation::Create, ("", "v1", "pods"), Some("ns"), "p", &mut pod);
            assert_eq!(admit(&plugin, attributes).await, want);
            assert_eq!(pod["spec"], after);
        }
        objects.put(
            "scheduling.k8s.io/priorityclasses",
            &json!({"metadata": {"name": "usual"}, "value": 5, "globalDefault": true}),
        );
        let mut pod = json!({"spec": {}});
        let attributes = attributes(Operation::Create, ("", "v1", "pods"), Some("ns"), "p", &mut pod);
        assert_eq!(admit(&plugin, attributes).await, "");
        assert_eq!(pod["spec"]["priorityClassName"], "usual");
    }
}
