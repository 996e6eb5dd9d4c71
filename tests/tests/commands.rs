//! kubectl's commands that need an API server and nothing else, as a user types them, on an object of every kind.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use pagurus_tests::server::Server;
use serde_json::Value;

/// An object of every kind that a user can make.
const KINDS: &str = include_str!("commands/kinds.yaml");
/// Kinds without an object here: the server makes them, or they are served in versions that are not on in every release.
const OTHERS: [&str; 9] = [
    "certificatesigningrequests.certificates.k8s.io",
    "clustertrustbundles.certificates.k8s.io",
    "devicetaintrules.resource.k8s.io",
    "ipaddresses.networking.k8s.io",
    "mutatingadmissionpolicies.admissionregistration.k8s.io",
    "mutatingadmissionpolicybindings.admissionregistration.k8s.io",
    "ones.pagurus.test",
    "podcertificaterequests.certificates.k8s.io",
    "storageversionmigrations.storagemigration.k8s.io",
];
/// Kinds that kubectl 1.32 describes by asking for versions that are gone.
const BETA: [&str; 2] = ["servicecidrs.networking.k8s.io", "volumeattributesclasses.storage.k8s.io"];

/// A server and a file with the objects; none where there is no server or no kubectl.
fn start() -> Result<Option<(Server, PathBuf)>> {
    let Some(server) = Server::start()? else { return Ok(None) };
    if server.kubectl(&["version", "--client"]).is_err() {
        println!("SKIPPED: there is no kubectl here");
        return Ok(None);
    }
    let file = server.data().join("kinds.yaml");
    std::fs::write(&file, KINDS)?;
    Ok(Some((server, file)))
}

/// What kubectl says when it fails.
fn refused(server: &Server, words: &[&str]) -> Result<String> {
    let out = server.kubectl(words)?;
    ensure!(!out.status.success(), "{words:?} must fail");
    Ok(String::from_utf8_lossy(&out.stderr).into_owned())
}

fn json(server: &Server, words: &[&str]) -> Result<Value> {
    let said = server.ok(&[words, &["-o", "json"]].concat())?;
    serde_json::from_str(&said).with_context(|| format!("{words:?}: {said}"))
}

#[test]
fn every_kind_is_applied_compared_shown_and_described() -> Result<()> {
    let Some((server, file)) = start()? else { return Ok(()) };
    let file = file.display().to_string();
    let server_side = ["apply", "--server-side", "--field-manager=tests", "-f", file.as_str()];
    let applied = server.ok(&server_side)?;
    let count = KINDS.lines().filter(|line| line.starts_with("kind: ")).count();
    ensure!(
        applied.lines().filter(|line| line.ends_with("serverside-applied")).count() == count,
        "{applied}"
    );
    // Applied again, nothing is new; and a comparison says so.
    ensure!(server.ok(&server_side)?.lines().count() == count, "again");
    server.ok(&["diff", "--server-side", "--field-manager=tests", "-f", &file])?;
    let names = server.ok(&["api-resources", "--verbs=list,create", "-o", "name"])?;
    let mut missing = BTreeSet::new();
    for kind in names.lines() {
        let shown = server.ok(&["get", kind, "-A", "-o", "wide"])?;
        if shown.is_empty() {
            missing.insert(kind);
            continue;
        }
        let head = shown.lines().next().unwrap_or_default();
        ensure!(head.contains("NAME") || kind.starts_with("events"), "{kind}: {head}");
        if !BETA.contains(&kind) {
            let described = server.ok(&["describe", kind, "-A"])?;
            ensure!(described.contains("Name:"), "{kind}: {described:?}");
        }
        // kubectl reads the second dot of this name as that of a field.
        let explained = match kind {
            "events.events.k8s.io" => {
                &["explain", "events", "--api-version=events.k8s.io/v1", "--recursive"][..]
            }
            kind => &["explain", kind, "--recursive"],
        };
        let explained = server.ok(explained)?;
        ensure!(explained.contains("KIND:") && explained.contains("FIELDS:"), "{kind}: {explained}");
    }
    let left: Vec<&&str> = missing.iter().filter(|kind| !OTHERS.contains(kind)).collect();
    ensure!(left.is_empty(), "no object of {left:?}");
    Ok(())
}

#[test]
fn objects_are_changed_in_every_way() -> Result<()> {
    let Some((server, _)) = start()? else { return Ok(()) };
    server.ok(&["create", "deployment", "d", "--image=i:1"])?;
    let deployment = || json(&server, &["get", "deploy", "d"]);
    for (words, place, wanted) in [
        (&["label", "deploy", "d", "a=1"][..], "/metadata/labels/a", Value::from("1")),
        (&["label", "deploy", "d", "a=2", "--overwrite"], "/metadata/labels/a", "2".into()),
        (&["label", "deploy", "d", "a-"], "/metadata/labels/a", Value::Null),
        (&["annotate", "deploy", "d", "b=1"], "/metadata/annotations/b", "1".into()),
        (&["annotate", "deploy", "d", "b-"], "/metadata/annotations/b", Value::Null),
        (&["patch", "deploy", "d", "-p", r#"{"spec":{"paused":true}}"#], "/spec/paused", true.into()),
        (
            &["patch", "deploy", "d", "--type=merge", "-p", r#"{"spec":{"paused":null}}"#],
            "/spec/paused",
            Value::Null,
        ),
        (
            &[
                "patch",
                "deploy",
                "d",
                "-p",
                r#"{"spec":{"template":{"spec":{"containers":[{"name":"i","tty":true}]}}}}"#,
            ],
            "/spec/template/spec/containers/0/image",
            "i:1".into(),
        ),
        (
            &[
                "patch",
                "deploy",
                "d",
                "--type=json",
                "-p",
                r#"[{"op":"replace","path":"/spec/replicas","value":4}]"#,
            ],
            "/spec/replicas",
            4.into(),
        ),
        (
            &[
                "patch",
                "deploy",
                "d",
                "--subresource=scale",
                "--type=merge",
                "-p",
                r#"{"spec":{"replicas":5}}"#,
            ],
            "/spec/replicas",
            5.into(),
        ),
        (
            &[
                "patch",
                "deploy",
                "d",
                "--subresource=status",
                "--type=merge",
                "-p",
                r#"{"status":{"replicas":5}}"#,
            ],
            "/status/replicas",
            5.into(),
        ),
        (&["scale", "deploy", "d", "--replicas=2"], "/spec/replicas", 2.into()),
        (&["set", "env", "deploy/d", "A=1"], "/spec/template/spec/containers/0/env/0/value", "1".into()),
        (&["rollout", "pause", "deploy/d"], "/spec/paused", true.into()),
    ] {
        server.ok(words)?;
        let now = deployment()?;
        ensure!(now.pointer(place).unwrap_or(&Value::Null) == &wanted, "{words:?}: {now}");
    }
    let said = refused(&server, &["label", "deploy", "d", "x=not valid"])?;
    ensure!(said.contains("a valid label must be an empty string or"), "{said}");
    let said = refused(
        &server,
        &[
            "patch",
            "deploy",
            "d",
            "--type=json",
            "-p",
            r#"[{"op":"test","path":"/spec/replicas","value":9}]"#,
        ],
    )?;
    ensure!(said.contains("the server rejected our request") || said.contains("testing"), "{said}");
    // Replaced: as a whole, refused when it is stale, and by force as a new object.
    let mut whole = deployment()?;
    let file = server.data().join("d.json");
    let path = file.display().to_string();
    whole["spec"]["replicas"] = 7.into();
    std::fs::write(&file, whole.to_string())?;
    server.ok(&["replace", "-f", &path])?;
    let said = refused(&server, &["replace", "-f", &path])?;
    ensure!(said.contains("the object has been modified"), "{said}");
    let uid = deployment()?["metadata"]["uid"].clone();
    server.ok(&["replace", "--force", "-f", &path])?;
    let new = deployment()?;
    ensure!(new["metadata"]["uid"] != uid && new["spec"]["replicas"] == 7, "{new}");
    Ok(())
}

#[test]
fn fields_have_owners_and_differences_are_shown() -> Result<()> {
    let Some((server, _)) = start()? else { return Ok(()) };
    let file = server.data().join("c.yaml");
    let path = file.display().to_string();
    let write = |value: &str| {
        std::fs::write(
            &file,
            format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c\ndata:\n  a: '{value}'\n"),
        )
    };
    write("1")?;
    server.ok(&["apply", "-f", &path])?;
    write("2")?;
    let out = server.kubectl(&["diff", "-f", &path])?;
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    ensure!(out.status.code() == Some(1) && said.contains("-  a: \"1\"\n+  a: \"2\""), "{said}");
    ensure!(json(&server, &["get", "cm", "c"])?["data"]["a"] == "1", "a comparison changes nothing");
    // From client-side to server-side apply, by the same user.
    server.ok(&["apply", "--server-side", "-f", &path])?;
    let said = refused(
        &server,
        &["apply", "--server-side", "--field-manager=other", "-f", &{
            write("3")?;
            path.clone()
        }],
    )?;
    ensure!(said.contains("conflict with \"kubectl\"") && said.contains(".data.a"), "{said}");
    server.ok(&["apply", "--server-side", "--field-manager=other", "--force-conflicts", "-f", &path])?;
    let map = json(&server, &["get", "cm", "c", "--show-managed-fields"])?;
    let owners = map["metadata"]["managedFields"].as_array().map(Vec::as_slice).unwrap_or_default();
    let owns = |entry: &&Value| entry["fieldsV1"]["f:data"]["f:a"].is_object();
    let names: Vec<&str> = owners.iter().filter(owns).filter_map(|entry| entry["manager"].as_str()).collect();
    ensure!(names == ["other"], "{owners:?}");
    ensure!(
        server.ok(&["apply", "--server-side", "--dry-run=server", "-f", &path])?.contains("(server dry run)")
            || map["data"]["a"] == "3",
        "dry run"
    );
    Ok(())
}

#[test]
fn waiting_ends_when_it_comes_true() -> Result<()> {
    let Some((server, _)) = start()? else { return Ok(()) };
    server.ok(&["create", "deployment", "d", "--image=i:1"])?;
    let available = r#"{"status":{"conditions":[{"type":"Available","status":"True"}]}}"#;
    let waits: [(&[&str], &[&str]); 3] = [
        (
            &["wait", "deploy/d", "--for=jsonpath={.spec.replicas}=3", "--timeout=20s"],
            &["scale", "deploy/d", "--replicas=3"],
        ),
        (
            &["wait", "deploy/d", "--for=condition=Available", "--timeout=20s"],
            &["patch", "deploy", "d", "--subresource=status", "--type=merge", "-p", available],
        ),
        (&["wait", "deploy/d", "--for=delete", "--timeout=20s"], &["delete", "deploy", "d"]),
    ];
    for (wait, act) in waits {
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| server.ok(wait));
            server.ok(act)?;
            let said = waiting.join().map_err(|_| anyhow::anyhow!("{wait:?} panicked"))??;
            ensure!(said.contains("condition met") || said.contains("deployment"), "{wait:?}: {said}");
            anyhow::Ok(())
        })?;
    }
    server.ok(&["create", "configmap", "c"])?;
    let said = refused(&server, &["wait", "cm/c", "--for=jsonpath={.data.a}=1", "--timeout=1s"])?;
    ensure!(said.contains("timed out waiting for the condition"), "{said}");
    Ok(())
}
