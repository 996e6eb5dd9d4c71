//! The committed table: it reads, it is whole, and it says what clients rely on.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::{FieldKind, ListType, Presence, Table};

#[test]
fn every_reference_and_resource_is_there() {
    let table = Table::builtin();
    assert!(table.types().count() > 1300);
    assert_eq!(table.resources().len(), 72);
    for resource in table.resources() {
        assert_eq!(table.type_(resource.type_id).short_name(), &*resource.kind);
        let listable = resource.has_verb("list");
        let list = table.kind_type(&resource.group, &resource.version, &resource.list_kind);
        assert!(!listable || list.is_some(), "{} has a list type", resource.plural);
        assert!(!listable || !resource.columns.is_empty(), "{} has columns", resource.plural);
        for sub in &resource.subresources {
            assert!(sub.type_id.is_some(), "{}/{} has a type", resource.plural, sub.name);
        }
        table
            .resource(&table.storage_of(resource).group, &resource.storage_version, &resource.plural)
            .unwrap();
    }
}

#[test]
fn groups_and_versions_are_in_order_of_preference() {
    let table = Table::builtin();
    assert_eq!(table.groups().take(3).collect::<Vec<_>>(), ["", "apiregistration.k8s.io", "apps"]);
    assert_eq!(table.versions("autoscaling").collect::<Vec<_>>(), ["v2", "v1"]);
    assert_eq!(table.versions("nowhere").count(), 0);
}

#[test]
fn fields_say_how_they_merge_and_whether_they_stay() {
    let table = Table::builtin();
    let field = |kind: [&str; 3], path: &[&str]| {
        let mut type_ = table.type_(table.kind_type(kind[0], kind[1], kind[2]).unwrap());
        let (last, front) = path.split_last().unwrap();
        for name in front {
            type_ = table.type_(type_.field(name).unwrap().kind.object().unwrap());
        }
        type_.field(last).unwrap()
    };
    let pod = ["", "v1", "Pod"];
    let ports = field(pod, &["spec", "containers", "ports"]);
    assert_eq!(ports.list_type, ListType::Map);
    assert_eq!(ports.map_keys.iter().map(|k| &**k).collect::<Vec<_>>(), ["containerPort", "protocol"]);
    assert_eq!(ports.merge_key.as_deref(), Some("containerPort"));
    assert!(ports.patch_strategy.merge && !ports.patch_strategy.replace);
    assert!(field(pod, &["spec", "volumes"]).patch_strategy.retain_keys);
    assert_eq!(field(pod, &["metadata", "finalizers"]).list_type, ListType::Set);
    assert!(field(pod, &["spec", "nodeSelector"]).atomic);
    let csi = field(pod, &["spec", "volumes", "csi"]);
    assert_eq!(csi.proto_path.len(), 2);
    assert_eq!(csi.embedded.iter().map(|e| &**e).collect::<Vec<_>>(), ["VolumeSource"]);
    let deployment = ["apps", "v1", "Deployment"];
    assert_eq!(field(deployment, &["spec", "replicas"]).presence, Presence::Pointer);
    assert_eq!(field(deployment, &["spec", "paused"]).presence, Presence::OmitEmpty);
    assert_eq!(field(deployment, &["status"]).presence, Presence::Always);
    let limits = &field(pod, &["spec", "containers", "resources", "limits"]).kind;
    assert_eq!(*limits, FieldKind::Map(Box::new(FieldKind::Quantity)));
    assert_eq!(field(["", "v1", "Secret"], &["data"]).kind, FieldKind::Map(Box::new(FieldKind::Bytes)));
}

#[test]
fn kinds_of_every_group_are_found() {
    let table = Table::builtin();
    for (group, kind) in [
        ("", "Status"),
        ("apps", "DeleteOptions"),
        ("batch", "WatchEvent"),
        ("autoscaling", "Scale"),
        ("policy", "Eviction"),
    ] {
        assert!(table.kind_type(group, "v1", kind).is_some(), "{group} {kind}");
    }
    assert!(table.kind_type("", "v1", "Nothing").is_none());
}

#[test]
fn what_is_no_table_is_refused_with_its_line() {
    let check =
        |text: &str, expected: &str| assert_eq!(Table::parse(text).unwrap_err().to_string(), expected);
    check("", "type table, line 0: the header is missing");
    check("V\t2\t1.37\n", "type table, line 1: format \"V\\t2\\t1.37\" is not known, want 1");
    check("V\t1\tx\nQ\n", "type table, line 2: record \"Q\" is not known");
    check("V\t1\tx\nP\tp\nT\tA\t\t\nF\tf\tOB\t\n", "type table, line 4: type \"B\" is not there");
    check("V\t1\tx\nP\tp\nT\tA\t\t\nF\tb\ts\t\nF\ta\ts\t\n", "type table, line 5: field a is not in order");
}
