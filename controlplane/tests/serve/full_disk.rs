//! A disk that is full: writes are refused in plain words, reads go on, nothing acknowledged is lost, and with space there is
//! everything goes on.

use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, PostParams};
use serde_json::json;

use super::process::{ControlPlane, eventually};
use super::{code, from, get};

/// Enough for what an empty cluster holds.
const LIMIT: u64 = 4 << 20;
const LARGE: usize = 200_000;

#[tokio::test]
async fn a_full_disk_refuses_writes_and_nothing_else() {
    let mut plane = ControlPlane::start_with_files_of(LIMIT).await.when_ready().await;
    let admin = plane.admin().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(admin.clone());
    let map = |name: &str, length: usize| -> ConfigMap {
        from(json!({"metadata": {"name": name}, "data": {"x": "y".repeat(length)}}))
    };
    let mut kept = Vec::new();
    let refusal = loop {
        let name = format!("large-{}", kept.len());
        match maps.create(&PostParams::default(), &map(&name, LARGE)).await {
            Ok(_) => kept.push(name),
            Err(error) => break error,
        }
        assert!(kept.len() < 100, "nothing is ever refused");
    };
    assert_eq!(code(&refusal), 500, "{refusal}");
    assert!(refusal.to_string().contains("no space left for"), "{refusal}");
    assert!(!kept.is_empty());

    assert_eq!(maps.list(&ListParams::default()).await.unwrap().items.len(), kept.len());
    assert_eq!(get(&admin, "/livez").await.unwrap(), "ok");
    maps.create(&PostParams::default(), &map("small", 1)).await.unwrap();
    plane.lift_limit();
    maps.create(&PostParams::default(), &map("later", LARGE)).await.unwrap();
    kept.extend(["later".to_owned(), "small".to_owned()]);

    plane.kill();
    plane.restart().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(plane.admin().await);
    let found = maps.list(&ListParams::default()).await.unwrap().items;
    let mut found: Vec<String> = found.into_iter().filter_map(|map| map.metadata.name).collect();
    found.sort();
    kept.sort();
    assert_eq!(found, kept);
}

#[tokio::test]
async fn a_disk_that_is_full_from_the_start_can_be_left_and_emptied() {
    let mut plane = ControlPlane::start_with_files_of(100_000).await;
    eventually(async || plane.answers("/livez/ping").await).await;
    assert!(!plane.answers("/readyz").await);
    plane.terminate();
    let status = plane.wait(Duration::from_secs(8)).await;
    assert!(status.success(), "{status}");
    plane.restart().await;
}
