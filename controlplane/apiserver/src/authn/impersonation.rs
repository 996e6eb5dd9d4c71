//! Impersonation: the `Impersonate-*` headers, each of which must be allowed by the verb `impersonate`.

use std::collections::BTreeMap;

use http::HeaderMap;
use pagurus_controlplane_api::status::ApiError;
use percent_encoding::percent_decode_str;

use crate::authz::{Attributes, Authorizer};
use crate::request::{GROUP_AUTHENTICATED, GROUP_UNAUTHENTICATED, USER_ANONYMOUS, UserInfo};

const EXTRA_PREFIX: &str = "impersonate-extra-";

/// Whom the request acts as: the user itself without such headers.
pub(super) fn apply(
    headers: &HeaderMap,
    user: UserInfo,
    authorizer: &Authorizer,
) -> Result<UserInfo, ApiError> {
    let Some(wanted) = Wanted::read(headers)? else { return Ok(user) };
    for (group, resource, subresource, namespace, name) in wanted.permissions() {
        authorizer.check(&Attributes {
            user: &user,
            verb: "impersonate",
            is_resource: true,
            group,
            version: "v1",
            resource,
            subresource,
            namespace,
            name,
            path: "",
        })?;
    }
    Ok(wanted.into_user())
}

/// Whom the headers ask for.
#[derive(Debug, Default)]
struct Wanted {
    name: String,
    uid: String,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

impl Wanted {
    fn read(headers: &HeaderMap) -> Result<Option<Self>, ApiError> {
        let texts = |name: &str| -> Vec<String> {
            headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned()).collect()
        };
        let first = |name: &str| texts(name).into_iter().next().unwrap_or_default();
        let mut wanted = Self {
            name: first("impersonate-user"),
            uid: first("impersonate-uid"),
            groups: texts("impersonate-group"),
            extra: BTreeMap::new(),
        };
        for key in headers.keys() {
            if let Some(name) = key.as_str().strip_prefix(EXTRA_PREFIX) {
                let name = percent_decode_str(name).decode_utf8_lossy().into_owned();
                wanted.extra.insert(name, texts(key.as_str()));
            }
        }
        if !wanted.name.is_empty() {
            return Ok(Some(wanted));
        }
        if wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty() {
            return Ok(None);
        }
        Err(ApiError::internal(format!("requested {:?} without impersonating a user", wanted.groups)))
    }

    /// What must be allowed: group, resource, subresource, namespace, name.
    fn permissions(&self) -> Vec<(&str, &str, &str, &str, &str)> {
        let mut needed = vec![match self.service_account() {
            Some((namespace, name)) => ("", "serviceaccounts", "", namespace, name),
            None => ("", "users", "", "", self.name.as_str()),
        }];
        needed.extend(self.groups.iter().map(|group| ("", "groups", "", "", group.as_str())));
        let extra = self.extra.iter().flat_map(|(key, values)| values.iter().map(move |value| (key, value)));
        needed.extend(
            extra.map(|(key, value)| {
                ("authentication.k8s.io", "userextras", key.as_str(), "", value.as_str())
            }),
        );
        if !self.uid.is_empty() {
            needed.push(("authentication.k8s.io", "uids", "", "", self.uid.as_str()));
        }
        needed
    }

    fn service_account(&self) -> Option<(&str, &str)> {
        let (namespace, name) = self.name.strip_prefix("system:serviceaccount:")?.split_once(':')?;
        (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
    }

    fn into_user(self) -> UserInfo {
        let mut groups = self.groups.clone();
        if groups.is_empty()
            && let Some((namespace, name)) = self.service_account()
        {
            groups = UserInfo::service_account(namespace, name, "").groups;
        }
        let known = |groups: &[String], group: &str| groups.iter().any(|g| g == group);
        let told = known(&groups, GROUP_AUTHENTICATED) || known(&groups, GROUP_UNAUTHENTICATED);
        if self.name != USER_ANONYMOUS && !told {
            groups.push(GROUP_AUTHENTICATED.to_owned());
        } else if self.name == USER_ANONYMOUS && !known(&groups, GROUP_UNAUTHENTICATED) {
            groups.push(GROUP_UNAUTHENTICATED.to_owned());
        }
        UserInfo { name: self.name, uid: self.uid, groups, extra: self.extra }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::{HeaderName, HeaderValue};

    use super::*;
    use crate::objects::fake::FakeObjects;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn who_one_becomes() {
        let authorizer = Authorizer::new(Arc::new(FakeObjects::default()));
        let admin = UserInfo::authenticated("admin", ["system:masters"]);
        type Row = (&'static [(&'static str, &'static str)], &'static str, &'static [&'static str]);
        let rows: [Row; 5] = [
            (&[], "admin", &["system:masters", "system:authenticated"]),
            (&[("Impersonate-User", "u")], "u", &["system:authenticated"]),
            (&[("Impersonate-User", "u"), ("Impersonate-Group", "g")], "u", &["g", "system:authenticated"]),
            (
                &[("Impersonate-User", "system:serviceaccount:n:s")],
                "system:serviceaccount:n:s",
                &["system:serviceaccounts", "system:serviceaccounts:n", "system:authenticated"],
            ),
            (&[("Impersonate-User", "system:anonymous")], "system:anonymous", &["system:unauthenticated"]),
        ];
        for (given, name, groups) in rows {
            let user = apply(&headers(given), admin.clone(), &authorizer).unwrap();
            assert_eq!(
                (user.name.as_str(), user.groups.iter().map(String::as_str).collect::<Vec<_>>()),
                (name, groups.to_vec())
            );
        }
    }

    #[test]
    fn must_be_allowed() {
        let authorizer = Authorizer::new(Arc::new(FakeObjects::default()));
        let user = UserInfo::authenticated("x", []);
        let error = apply(&headers(&[("Impersonate-User", "u")]), user.clone(), &authorizer).unwrap_err();
        assert_eq!(
            error.message,
            "users \"u\" is forbidden: User \"x\" cannot impersonate resource \"users\" in API group \"\" at the cluster scope"
        );
        let error = apply(&headers(&[("Impersonate-Group", "g")]), user, &authorizer).unwrap_err();
        assert_eq!(error.code, 500);
    }
}
