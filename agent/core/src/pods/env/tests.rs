//! Cases for the environment of containers.

use serde_json::{Value, json};

use super::*;

fn pod() -> Pod {
    Pod::decode(json!({
        "metadata": {"namespace": "ns", "name": "p", "uid": "u-1", "labels": {"app": "web", "a": "x\"y"}},
        "spec": {"nodeName": "n1", "serviceAccountName": "sa"},
    }))
    .unwrap()
}

fn around() -> Surroundings {
    let text = |entries: &[(&str, &str)]| {
        let data = entries.iter().map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec())).collect();
        Arc::new(ObjectData { data, binary: BTreeMap::new() })
    };
    Surroundings {
        objects: Objects {
            config_maps: BTreeMap::from([("cm".to_owned(), text(&[("k", "v"), ("l", "w")]))]),
            secrets: BTreeMap::from([("s".to_owned(), text(&[("pw", "hidden")]))]),
        },
        services: vec![ServiceLink {
            name: "kube-x".into(),
            ip: "10.96.0.1".into(),
            ports: vec![("https".into(), 443, "TCP".into())],
        }],
        pod_ips: vec!["10.1.0.2".parse().unwrap(), "fd00::2".parse().unwrap()],
        host_ips: vec!["192.0.2.1".parse().unwrap()],
        allocatable: BTreeMap::new(),
    }
}

fn check(container: Value, expected: Result<&[(&str, &str)], &str>) {
    let text = container.to_string();
    let container: Container = serde_json::from_value(container).unwrap();
    let mut around = around();
    if expected.is_ok_and(|entries| !entries.iter().any(|(name, _)| name.starts_with("KUBE_X"))) {
        around.services.clear();
    }
    let found = environment(&pod(), &container, &around).map_err(|error| error.to_string());
    let expected = expected
        .map(|entries| entries.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect::<Vec<_>>())
        .map_err(str::to_owned);
    assert_eq!(found, expected, "{text}");
}

#[test]
fn values() {
    check(
        json!({"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)-$(C)-$$(A)"}]}),
        Ok(&[("A", "1"), ("B", "1-$(C)-$(A)")]),
    );
    check(json!({"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "$(A)2"}]}), Ok(&[("A", "12")]));
    check(json!({"env": [{"name": "A"}]}), Ok(&[("A", "")]));
}

#[test]
fn references() {
    let key = |kind: &str, name: &str, key: &str, optional: bool| json!({"env": [{"name": "A", "valueFrom": {kind: {"name": name, "key": key, "optional": optional}}}]});
    check(key("configMapKeyRef", "cm", "k", false), Ok(&[("A", "v")]));
    check(key("secretKeyRef", "s", "pw", false), Ok(&[("A", "hidden")]));
    check(key("configMapKeyRef", "cm", "no", true), Ok(&[]));
    check(key("configMapKeyRef", "no", "k", true), Ok(&[]));
    check(key("configMapKeyRef", "no", "k", false), Err("configmap \"no\" not found"));
    check(key("secretKeyRef", "no", "k", false), Err("secret \"no\" not found"));
    check(
        key("fileKeyRef", "s", "k", false),
        Err("environment from fileKeyRef is not supported by this node"),
    );
    check(key("secretKeyRef", "s", "k", false), Err("couldn't find key k in Secret ns/s"));
}

#[test]
fn whole_objects() {
    check(
        json!({"envFrom": [{"prefix": "P_", "configMapRef": {"name": "cm"}}, {"secretRef": {"name": "s"}}],
        "env": [{"name": "P_k", "value": "mine"}]}),
        Ok(&[("P_k", "mine"), ("P_l", "w"), ("pw", "hidden")]),
    );
    check(json!({"envFrom": [{"configMapRef": {"name": "no", "optional": true}}]}), Ok(&[]));
    check(json!({"envFrom": [{"configMapRef": {"name": "no"}}]}), Err("configmap \"no\" not found"));
}

#[test]
fn services() {
    check(
        json!({"env": [{"name": "URL", "value": "https://$(KUBE_X_SERVICE_HOST)"}]}),
        Ok(&[
            ("URL", "https://10.96.0.1"),
            ("KUBE_X_PORT", "tcp://10.96.0.1:443"),
            ("KUBE_X_PORT_443_TCP", "tcp://10.96.0.1:443"),
            ("KUBE_X_PORT_443_TCP_ADDR", "10.96.0.1"),
            ("KUBE_X_PORT_443_TCP_PORT", "443"),
            ("KUBE_X_PORT_443_TCP_PROTO", "tcp"),
            ("KUBE_X_SERVICE_HOST", "10.96.0.1"),
            ("KUBE_X_SERVICE_PORT", "443"),
            ("KUBE_X_SERVICE_PORT_HTTPS", "443"),
        ]),
    );
}

#[test]
fn fields() {
    for (path, expected) in [
        ("metadata.name", Ok("p")),
        ("metadata.labels['app']", Ok("web")),
        ("metadata.labels['none']", Ok("")),
        ("metadata.labels", Ok("a=\"x\\\"y\"\napp=\"web\"")),
        ("status.podIPs", Ok("10.1.0.2,fd00::2")),
        ("status.hostIP", Ok("192.0.2.1")),
        ("spec.serviceAccountName", Ok("sa")),
        ("spec.other", Err("unsupported fieldPath: spec.other")),
    ] {
        let found = field(&pod(), &FieldReference { field_path: path.into() }, &around());
        assert_eq!(
            found.map_err(|e| e.to_string()),
            expected.map(str::to_owned).map_err(str::to_owned),
            "{path}"
        );
    }
}

#[test]
fn expansion() {
    let lookup = |name: &str| (name == "A").then(|| "1".to_owned());
    for (text, expected) in [
        ("", ""),
        ("$", "$"),
        ("$$", "$"),
        ("$(A", "$(A"),
        ("$(A)", "1"),
        ("x$(A)y$(A)", "x1y1"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$(B)", "$(B)"),
        ("$(A$(A))", "$(A$(A))"),
        ("$A", "$A"),
    ] {
        assert_eq!(expand(text, lookup), expected, "{text}");
    }
}

proptest::proptest! {
    #[test]
    fn text_without_dollars_stays(text in "[^$]*") {
        proptest::prop_assert_eq!(expand(&text, |_| Some("x".to_owned())), text);
    }

    #[test]
    fn doubled_dollars_come_out_single(text in "\\PC*") {
        let doubled = text.replace('$', "$$");
        proptest::prop_assert_eq!(expand(&doubled, |_| Some("x".to_owned())), text);
    }
}
