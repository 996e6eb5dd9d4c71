//! Rows for the node's status and its patch.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn facts() -> Facts {
    Facts {
        identity: Identity {
            name: "n1".to_owned(),
            addresses: vec!["10.0.0.1".to_owned(), "fd00::1".to_owned()],
            architecture: "amd64".to_owned(),
            port: 10250,
            ..Identity::default()
        },
        resources: Resources {
            cpus: 2,
            memory: 8 << 30,
            storage: 100 << 30,
            huge_pages: BTreeMap::from([(2 << 20, 1 << 30), (1 << 30, 0)]),
            pods: 110,
            swap: 0,
        },
        ..Facts::default()
    }
}

fn ready(facts: &Facts) -> (String, String) {
    let status = status(facts, &Value::Null, at(0));
    let ready = condition_of(&status, "Ready").unwrap();
    (ready["status"].as_str().unwrap().to_owned(), ready["message"].as_str().unwrap().to_owned())
}

#[test]
fn resources_of_a_node() {
    let status = status(&facts(), &Value::Null, at(0));
    assert_eq!(
        status["capacity"],
        json!({"cpu": "2", "memory": "8388608Ki", "ephemeral-storage": "104857600Ki", "pods": "110",
               "hugepages-2Mi": "1Gi", "hugepages-1Gi": "0"})
    );
    assert_eq!(
        status["allocatable"],
        json!({"cpu": "2", "memory": "7237632Ki", "ephemeral-storage": "96636764160", "pods": "110",
               "hugepages-2Mi": "1Gi", "hugepages-1Gi": "0"})
    );
    assert_eq!(status["addresses"].as_array().unwrap().len(), 3);
}

#[test]
fn readiness_names_what_is_missing() {
    let good = facts();
    assert_eq!(ready(&good).0, "True");
    let mut bad = good.clone();
    bad.missing.push("dataplane: starting".to_owned());
    assert_eq!(ready(&bad), ("False".to_owned(), "dataplane: starting".to_owned()));
    bad.runtime.problems.push("container runtime is down".to_owned());
    assert_eq!(ready(&bad).1, "container runtime is down, dataplane: starting");
}

#[test]
fn conditions_keep_the_time_of_their_change() {
    let first = status(&facts(), &Value::Null, at(0));
    let mut facts = facts();
    facts.missing.push("x".to_owned());
    let second = status(&facts, &first, at(60));
    let times = |status: &Value, kind: &str| {
        let condition = condition_of(status, kind).unwrap();
        (condition["lastTransitionTime"].clone(), condition["lastHeartbeatTime"].clone())
    };
    assert_eq!(times(&second, "Ready"), (at(60).to_string().into(), at(60).to_string().into()));
    assert_eq!(times(&second, "MemoryPressure"), (at(0).to_string().into(), at(60).to_string().into()));
}

#[test]
fn patches() {
    let interval = SignedDuration::from_secs(300);
    let before = status(&facts(), &Value::Null, at(0));
    let check = |facts: &Facts, second: i64, expected: &[&str]| {
        let wanted = status(facts, &before, at(second));
        let patch = patch(&before, &wanted, at(second), interval);
        let fields: Vec<String> = patch
            .map(|patch| patch["status"].as_object().unwrap().keys().cloned().collect())
            .unwrap_or_default();
        assert_eq!(fields, expected, "after {second} s");
    };
    check(&facts(), 10, &[]);
    check(&facts(), 299, &[]);
    check(&facts(), 300, &["conditions"]);
    let mut changed = facts();
    changed.images.push(Image { names: vec!["a:1".to_owned()], size: 5 });
    check(&changed, 10, &["conditions", "images"]);
    let mut changed = facts();
    changed.missing.push("x".to_owned());
    check(&changed, 10, &["conditions"]);
    let mut changed = facts();
    changed.resources.cpus = 4;
    check(&changed, 10, &["allocatable", "capacity", "conditions"]);

    let all = patch(&Value::Null, &before, at(0), interval).unwrap();
    assert_eq!(all["status"]["addresses"][3], json!({"$patch": "replace"}));
    assert_eq!(all["status"]["images"], Value::Null, "an empty list is not written over an absent one");
}

#[test]
fn another_writer_of_our_conditions_is_overruled() {
    let facts = facts();
    let mut before = status(&facts, &Value::Null, at(0));
    // What the node lifecycle controller does to a node whose lease ran out.
    before["conditions"][3]["status"] = "Unknown".into();
    let wanted = status(&facts, &before, at(10));
    assert!(patch(&before, &wanted, at(10), SignedDuration::from_secs(300)).is_some());
    assert_eq!(condition_of(&wanted, "Ready").unwrap()["lastTransitionTime"], at(10).to_string());
}

#[test]
fn images_largest_first_and_not_too_many() {
    let image = |n: u64| Image { names: (0..n % 8).map(|tag| format!("i{n}:{tag}")).collect(), size: n };
    let list = image_list(&(0..100).map(image).collect::<Vec<_>>());
    assert_eq!(list.len(), MAX_IMAGES);
    assert_eq!(list[0]["sizeBytes"], 99);
    assert!(list.iter().all(|image| (1..=5).contains(&image["names"].as_array().unwrap().len())));
}

#[test]
fn labels_of_a_node() {
    let labels = labels(&facts().identity);
    assert_eq!(labels["kubernetes.io/hostname"], "n1");
    assert_eq!(labels["beta.kubernetes.io/arch"], "amd64");
}
