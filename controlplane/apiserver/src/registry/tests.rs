//! What a registry shows when custom resources come and go.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;

use pagurus_controlplane_schema::table::{Resource, Storage, TypeId};
use pagurus_controlplane_store::embedded;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::strategy::Generic;

#[test]
fn versions_in_order() {
    // The order that the documentation of CustomResourceDefinition versions shows.
    let sorted = [
        "v10",
        "v2",
        "v1",
        "v11beta2",
        "v10beta3",
        "v3beta1",
        "v12alpha1",
        "v11alpha2",
        "foo1",
        "foo10",
        "v01",
    ];
    let mut mixed: Vec<&str> = sorted.iter().rev().copied().collect();
    mixed.sort_by(|a, b| compare_versions(b, a));
    assert_eq!(mixed, sorted);
}

fn resource(group: &str, version: &str, plural: &str, type_id: TypeId) -> Arc<Resource> {
    let kind: Arc<str> = format!("Kind-{plural}").into();
    Arc::new(Resource {
        group: group.into(),
        version: version.into(),
        plural: plural.into(),
        singular: "".into(),
        kind: kind.clone(),
        list_kind: format!("{kind}List").into(),
        namespaced: true,
        verbs: vec!["get".into(), "list".into()],
        short_names: Vec::new(),
        categories: Vec::new(),
        subresources: Vec::new(),
        storage: Storage { group: group.into(), version: version.into(), plural: plural.into() },
        storage_version: version.into(),
        storage_version_hash: "x".into(),
        type_id,
        columns: Vec::new(),
    })
}

/// A custom resource in some versions, the first one stored.
async fn custom(group: &str, plural: &str, versions: &[&str]) -> Vec<Served> {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(embedded::Store::open(directory.path(), embedded::Options::default()).unwrap());
    let table = Table::builtin().clone();
    let id = table.kind_type("", "v1", "ConfigMap").unwrap();
    let resources: Vec<_> = versions.iter().map(|version| resource(group, version, plural, id)).collect();
    let strategy = Rules::Custom(Arc::new(Generic));
    let prefix = format!("/registry/{group}/{plural}/");
    let (cache, _feed) =
        Cache::start(strategy.clone(), prefix, store, CancellationToken::new()).await.unwrap();
    let kind = Arc::new(Kind { resource: resources[0].clone(), table, strategy, cache });
    resources.into_iter().map(|resource| Served::stored(resource, kind.clone())).collect()
}

fn shown(registry: &Registry, group: &str) -> String {
    let group = registry.group(group);
    let version = |v: &Arc<Version>| {
        let names: Vec<&str> = v.resources().iter().map(|s| &*s.resource.plural).collect();
        format!("{}: {}", v.name, names.join(" "))
    };
    group.map(|g| g.versions().iter().map(version).collect::<Vec<_>>().join(", ")).unwrap_or_default()
}

#[tokio::test]
async fn custom_resources_come_and_go() {
    let builtin = Registry::builtin(Table::builtin(), &HashMap::new());
    let wanted =
        |registry: &Registry| registry.groups().iter().map(|g| g.name.to_string()).collect::<Vec<_>>();
    assert_eq!(wanted(&builtin), Table::builtin().groups().collect::<Vec<_>>());
    let one = builtin.with_custom("a.org", "lions", custom("a.org", "lions", &["v1beta1", "v1"]).await);
    let two = one.with_custom("a.org", "bears", custom("a.org", "bears", &["v1"]).await);
    assert_eq!(shown(&two, "a.org"), "v1: bears lions, v1beta1: lions");
    assert_eq!(wanted(&two).last().map(String::as_str), Some("a.org"));
    assert_eq!(shown(&one, "a.org"), "v1: lions, v1beta1: lions", "an older registry stays as it was");
    assert!(two.generation() > one.generation());
    assert_eq!(
        two.kind("a.org", "lions").map(|k| k.resource.version.to_string()),
        Some("v1beta1".to_owned())
    );
    assert_eq!(two.kinds().count(), 2);
    // Other versions take the place of those that were.
    let three = two.with_custom("a.org", "lions", custom("a.org", "lions", &["v2"]).await);
    assert_eq!(shown(&three, "a.org"), "v2: lions, v1: bears");
    assert!(three.resource("a.org", "v1", "lions").is_none());
    let none = three.with_custom("a.org", "lions", Vec::new()).with_custom("a.org", "bears", Vec::new());
    assert_eq!(wanted(&none), wanted(&builtin));
}

#[tokio::test]
async fn a_custom_resource_in_a_group_of_the_program_leaves_that_as_it_is() {
    let builtin = Registry::builtin(Table::builtin(), &HashMap::new());
    let with = builtin.with_custom("policy", "lions", custom("policy", "lions", &["v1", "v1alpha2"]).await);
    assert_eq!(shown(&with, "policy"), format!("{} lions, v1alpha2: lions", shown(&builtin, "policy")));
    let without = with.with_custom("policy", "lions", Vec::new());
    assert_eq!(shown(&without, "policy"), shown(&builtin, "policy"));
}

#[tokio::test]
async fn discovery_of_a_group_is_made_once_and_anew_when_it_changes() {
    let builtin = Registry::builtin(Table::builtin(), &HashMap::new());
    let one = builtin.with_custom("a.org", "lions", custom("a.org", "lions", &["v1"]).await);
    let two = one.with_custom("b.org", "bears", custom("b.org", "bears", &["v1"]).await);
    let entry = |r: &Registry, group: &str| r.group(group).unwrap().entry().as_ptr();
    assert_eq!(entry(&one, "a.org"), entry(&two, "a.org"), "another group has nothing to do with it");
    let three = two.with_custom("a.org", "bears", custom("a.org", "bears", &["v1"]).await);
    assert!(three.group("a.org").unwrap().entry().contains("Kind-bears"));
    let list = three.group("a.org").unwrap().version("v1").unwrap().resource_list("a.org");
    assert!(String::from_utf8_lossy(&list).contains("\"name\":\"lions\""));
}
