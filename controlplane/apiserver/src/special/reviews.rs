//! Reviews: may somebody do something, what may I do, who am I, whose token is this. Nothing is stored.

use pagurus_controlplane_api::field::FieldError;
use pagurus_controlplane_api::status::ApiError;
use pagurus_controlplane_api::time;
use pagurus_controlplane_schema::fields::{self, Form, OneVersion, Set, Writer};
use serde_json::{Map, Value, json};

use super::{Specials, read, text};
use crate::authz::{Attributes, Decision, Rule};
use crate::engine::Engine;
use crate::request::{Body, Call, UserInfo};

const AUTHORIZATION: &str = "authorization.k8s.io";
const AUTHENTICATION: &str = "authentication.k8s.io";

/// The kinds of reviews.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Review {
    SubjectAccess,
    LocalSubjectAccess,
    SelfSubjectAccess,
    SelfSubjectRules,
    SelfSubject,
    Token,
}

impl Review {
    pub(super) fn of_resource(resource: &str) -> Option<Self> {
        Some(match resource {
            "subjectaccessreviews" => Self::SubjectAccess,
            "localsubjectaccessreviews" => Self::LocalSubjectAccess,
            "selfsubjectaccessreviews" => Self::SelfSubjectAccess,
            "selfsubjectrulesreviews" => Self::SelfSubjectRules,
            "selfsubjectreviews" => Self::SelfSubject,
            "tokenreviews" => Self::Token,
            _ => return None,
        })
    }

    fn kind(self) -> (&'static str, &'static str) {
        match self {
            Self::SubjectAccess => (AUTHORIZATION, "SubjectAccessReview"),
            Self::LocalSubjectAccess => (AUTHORIZATION, "LocalSubjectAccessReview"),
            Self::SelfSubjectAccess => (AUTHORIZATION, "SelfSubjectAccessReview"),
            Self::SelfSubjectRules => (AUTHORIZATION, "SelfSubjectRulesReview"),
            Self::SelfSubject => (AUTHENTICATION, "SelfSubjectReview"),
            Self::Token => (AUTHENTICATION, "TokenReview"),
        }
    }
}

impl Specials {
    pub(super) async fn review(
        &self,
        engine: &Engine,
        review: Review,
        call: &Call,
        body: Body,
    ) -> Result<Value, ApiError> {
        let (group, kind) = review.kind();
        let mut object = read(engine, (group, "v1", kind), call, body).await?;
        match review {
            Review::SelfSubjectRules => return self.rules(object, &call.user),
            Review::SelfSubject => {
                object["metadata"] = json!({"creationTimestamp": time::now_text()});
                object["status"] = json!({"userInfo": user_value(&call.user)});
                return Ok(object);
            }
            _ => {}
        }
        own(engine, (group, kind), &mut object, call);
        let status = match review {
            Review::Token => self.token_review(&object)?,
            Review::SelfSubjectAccess => self.access(&object, review, &call.user)?,
            _ => self.access(&object, review, &asked_user(&object))?,
        };
        object["status"] = status;
        Ok(object)
    }

    fn access(&self, object: &Value, review: Review, user: &UserInfo) -> Result<Value, ApiError> {
        let mistakes = access_mistakes(object, review);
        if !mistakes.is_empty() {
            return Err(ApiError::invalid(AUTHORIZATION, "", "", mistakes));
        }
        let attributes = asked_attributes(object, user);
        Ok(match self.authorizer.decide(&attributes) {
            Decision::Allow(reason) if reason.is_empty() => json!({"allowed": true}),
            Decision::Allow(reason) => json!({"allowed": true, "reason": reason}),
            Decision::NoOpinion(reason) if reason.is_empty() => json!({"allowed": false}),
            Decision::NoOpinion(reason) => json!({"allowed": false, "reason": reason}),
        })
    }

    fn rules(&self, mut object: Value, user: &UserInfo) -> Result<Value, ApiError> {
        let namespace = text(&object, "/spec/namespace");
        if namespace.is_empty() {
            return Err(ApiError::bad_request("no namespace on request"));
        }
        let (rules, incomplete) = self.authorizer.rules_for(user, namespace);
        let resources = rules.iter().filter(|rule| !rule.resources.is_empty()).map(resource_rule);
        let urls = rules.iter().filter(|rule| !rule.non_resource_urls.is_empty());
        let urls = urls.map(|rule| json!({"verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls}));
        let status = json!({
            "resourceRules": resources.collect::<Vec<_>>(),
            "nonResourceRules": urls.collect::<Vec<_>>(),
            "incomplete": incomplete,
        });
        object["metadata"] = json!({});
        object["spec"] = json!({});
        object["status"] = status;
        Ok(object)
    }

    fn token_review(&self, object: &Value) -> Result<Value, ApiError> {
        let token = text(object, "/spec/token");
        if token.is_empty() {
            return Err(ApiError::bad_request("token is required for TokenReview in authentication"));
        }
        let wanted = texts(object.pointer("/spec/audiences"));
        Ok(match self.tokens.authenticate(token, &wanted) {
            Ok((user, audiences)) => {
                json!({"authenticated": true, "user": user_value(&user), "audiences": audiences})
            }
            Err(error) => json!({"user": {}, "error": error.to_string()}),
        })
    }
}

/// Notes who set which fields, as for anything that is created.
fn own(engine: &Engine, (group, kind): (&str, &str), object: &mut Value, call: &Call) {
    let table = engine.table();
    let Some(id) = table.kind_type(group, "v1", kind) else { return };
    let (manager, now) = (call.field_manager(), time::now_text());
    let api_version = format!("{group}/v1");
    let writer = Writer { manager: &manager, api_version: &api_version, subresource: "", now: &now };
    let form = Form { table, id, versions: &OneVersion };
    fields::update(&form, None, object, &writer, &Set::default());
}

fn resource_rule(rule: &Rule) -> Value {
    let mut value = json!({"verbs": rule.verbs, "apiGroups": rule.api_groups, "resources": rule.resources});
    if !rule.resource_names.is_empty() {
        value["resourceNames"] = json!(rule.resource_names);
    }
    value
}

fn user_value(user: &UserInfo) -> Value {
    let mut value = Map::new();
    value.insert("username".to_owned(), json!(user.name));
    if !user.uid.is_empty() {
        value.insert("uid".to_owned(), json!(user.uid));
    }
    if !user.groups.is_empty() {
        value.insert("groups".to_owned(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        value.insert("extra".to_owned(), json!(user.extra));
    }
    Value::Object(value)
}

fn texts(list: Option<&Value>) -> Vec<String> {
    let items = list.and_then(Value::as_array).into_iter().flatten();
    items.filter_map(|item| item.as_str().map(str::to_owned)).collect()
}

/// The user an access review asks about.
fn asked_user(object: &Value) -> UserInfo {
    let extra = object.pointer("/spec/extra").and_then(Value::as_object).into_iter().flatten();
    UserInfo {
        name: text(object, "/spec/user").to_owned(),
        uid: text(object, "/spec/uid").to_owned(),
        groups: texts(object.pointer("/spec/groups")),
        extra: extra.map(|(key, values)| (key.clone(), texts(Some(values)))).collect(),
    }
}

/// What an access review asks about.
fn asked_attributes<'a>(object: &'a Value, user: &'a UserInfo) -> Attributes<'a> {
    if let Some(path) = object.pointer("/spec/nonResourceAttributes").filter(|p| p.is_object()) {
        return Attributes {
            user,
            verb: text(path, "/verb"),
            path: text(path, "/path"),
            ..Attributes::default()
        };
    }
    let of = |field: &str| text(object, &format!("/spec/resourceAttributes/{field}"));
    Attributes {
        user,
        verb: of("verb"),
        is_resource: true,
        group: of("group"),
        version: of("version"),
        resource: of("resource"),
        subresource: of("subresource"),
        namespace: of("namespace"),
        name: of("name"),
        path: "",
    }
}

fn access_mistakes(object: &Value, review: Review) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let given = |field: &str| object.pointer(&format!("/spec/{field}")).is_some_and(Value::is_object);
    let (resource, path) = (given("resourceAttributes"), given("nonResourceAttributes"));
    if resource && path {
        let field = "spec.nonResourceAttributes";
        let value = object["spec"]["nonResourceAttributes"].clone();
        errors.push(FieldError::invalid(
            field,
            value,
            "cannot be specified in combination with resourceAttributes",
        ));
    }
    if !resource && !path {
        let detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        errors.push(FieldError::invalid("spec.resourceAttributes", Value::Null, detail));
    }
    let asks_self = review == Review::SelfSubjectAccess;
    if !asks_self && text(object, "/spec/user").is_empty() && texts(object.pointer("/spec/groups")).is_empty()
    {
        errors.push(FieldError::invalid("spec.user", "", "at least one of user or group must be specified"));
    }
    if review == Review::LocalSubjectAccess {
        let namespace = text(object, "/spec/resourceAttributes/namespace");
        if resource && namespace != text(object, "/metadata/namespace") {
            let field = "spec.resourceAttributes.namespace";
            errors.push(FieldError::invalid(field, namespace, "must match metadata.namespace"));
        }
        if path {
            let value = object["spec"]["nonResourceAttributes"].clone();
            errors.push(FieldError::invalid(
                "spec.nonResourceAttributes",
                value,
                "disallowed on this kind of request",
            ));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use pagurus_controlplane_api::field::aggregate;

    use super::*;

    #[test]
    fn mistakes() {
        let pods = json!({"resourceAttributes": {"resource": "pods", "namespace": "ns"}, "user": "u"});
        let rows = [
            (Review::SubjectAccess, json!({"spec": pods}), "[]"),
            (
                Review::SubjectAccess,
                json!({"spec": {"resourceAttributes": {"verb": "get"}}}),
                "spec.user: Invalid value: \"\": at least one of user or group must be specified",
            ),
            (Review::SelfSubjectAccess, json!({"spec": {"nonResourceAttributes": {"path": "/x"}}}), "[]"),
            (
                Review::LocalSubjectAccess,
                json!({"metadata": {"namespace": "other"}, "spec": pods}),
                "spec.resourceAttributes.namespace: Invalid value: \"ns\": must match metadata.namespace",
            ),
        ];
        for (review, object, want) in rows {
            assert_eq!(aggregate(&access_mistakes(&object, review)), want);
        }
    }
}
