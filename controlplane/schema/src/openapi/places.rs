//! The paths that are no resource's: discovery, the version, and the keys of tokens. It must not know schemas beyond their names.

use super::operation::{Answer, OBJECTS, Operation};
use super::paths::{Path, capitalized, group_names};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const VERSION: &str = "io.k8s.apimachinery.pkg.version.Info";
const JSON: &[&str] = &["application/json"];

fn get(
    path: &str,
    id: String,
    description: &str,
    tag: &str,
    answer: Answer,
    consumes: &'static [&'static str],
    produces: &'static [&'static str],
) -> Path {
    let operation = Operation {
        id,
        method: "get",
        description: description.to_owned(),
        action: None,
        parameters: Vec::new(),
        body: None,
        answer,
        codes: &[],
        consumes,
        produces,
        tag: tag.to_owned(),
    };
    (format!("/{path}/"), vec![operation])
}

fn discovery(path: &str, id: String, description: &str, tag: &str, kind: &str) -> Path {
    get(path, id, description, tag, Answer::Schema(format!("{META}.{kind}")), OBJECTS, OBJECTS)
}

/// The discovery of a group's version.
pub(super) fn of_version(group: &str, version: &str) -> Path {
    let (id, tag) = group_names(group);
    let path = super::root(group, version);
    let id = format!("get{id}{}APIResources", capitalized(version));
    discovery(&path[1..], id, "get available resources", &format!("{tag}_{version}"), "APIResourceList")
}

/// The discovery of a group; the core has one too.
pub(super) fn of_group(group: &str) -> Path {
    let (id, tag) = group_names(group);
    if group.is_empty() {
        return discovery(
            "api",
            format!("get{id}APIVersions"),
            "get available API versions",
            &tag,
            "APIVersions",
        );
    }
    discovery(
        &format!("apis/{group}"),
        format!("get{id}APIGroup"),
        "get information of a group",
        &tag,
        "APIGroup",
    )
}

/// What is of no group.
pub(super) fn others() -> [Path; 4] {
    [
        get(
            ".well-known/openid-configuration",
            "getServiceAccountIssuerOpenIDConfiguration".to_owned(),
            "get service account issuer OpenID configuration, also known as the 'OIDC discovery doc'",
            "WellKnown",
            Answer::Text,
            &[],
            JSON,
        ),
        discovery("apis", "getAPIVersions".to_owned(), "get available API versions", "apis", "APIGroupList"),
        get(
            "openid/v1/jwks",
            "getServiceAccountIssuerOpenIDKeyset".to_owned(),
            "get service account issuer OpenID JSON Web Key Set (contains public token verification keys)",
            "openid",
            Answer::Text,
            &[],
            &["application/jwk-set+json"],
        ),
        get(
            "version",
            "getCodeVersion".to_owned(),
            "get the version information for this server",
            "version",
            Answer::Schema(VERSION.to_owned()),
            JSON,
            JSON,
        ),
    ]
}
