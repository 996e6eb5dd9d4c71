//! kubectl's commands that need an API server and nothing else, as a user types them, with every kubectl of this machine.

mod kinds;
mod make;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use pagurus_tests::eventually::eventually;
use pagurus_tests::kubectl::{self, Kubectl};
use pagurus_tests::server::Server;
use serde_json::Value;

/// Runs a test with every kubectl, each on a server of its own; says that it is skipped where there is no server or no kubectl.
fn with_each(components: &'static str, test: impl Fn(&Server, u32) -> Result<()>) -> Result<()> {
    if let Err(reason) = Kubectl::all() {
        println!("SKIPPED: {reason}");
        return Ok(());
    }
    kubectl::with_each(|kubectl| {
        let Some(mut server) = Server::start_with(components, None)? else { return Ok(()) };
        server.use_kubectl(kubectl);
        eventually("the first namespace is there", Duration::from_secs(20), || {
            server.ok(&["get", "namespace", "default"]).map(Some)
        })?;
        test(&server, kubectl.minor())
    })
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
fn objects_are_changed_in_every_way() -> Result<()> {
    with_each("apiserver", |server, _| {
        server.ok(&["create", "deployment", "d", "--image=i:1"])?;
        let deployment = || json(server, &["get", "deploy", "d"]);
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
        let said = refused(server, &["label", "deploy", "d", "x=not valid"])?;
        ensure!(said.contains("a valid label must be an empty string or"), "{said}");
        let said = refused(
            server,
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
        let said = refused(server, &["replace", "-f", &path])?;
        ensure!(said.contains("the object has been modified"), "{said}");
        let uid = deployment()?["metadata"]["uid"].clone();
        server.ok(&["replace", "--force", "-f", &path])?;
        let new = deployment()?;
        ensure!(new["metadata"]["uid"] != uid && new["spec"]["replicas"] == 7, "{new}");
        Ok(())
    })
}

#[test]
fn fields_have_owners_and_differences_are_shown() -> Result<()> {
    with_each("apiserver", |server, _| {
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
        ensure!(json(server, &["get", "cm", "c"])?["data"]["a"] == "1", "a comparison changes nothing");
        // From client-side to server-side apply, by the same user.
        server.ok(&["apply", "--server-side", "-f", &path])?;
        let said = refused(
            server,
            &["apply", "--server-side", "--field-manager=other", "-f", &{
                write("3")?;
                path.clone()
            }],
        )?;
        ensure!(said.contains("conflict with \"kubectl\"") && said.contains(".data.a"), "{said}");
        server.ok(&["apply", "--server-side", "--field-manager=other", "--force-conflicts", "-f", &path])?;
        let map = json(server, &["get", "cm", "c", "--show-managed-fields"])?;
        let owners = map["metadata"]["managedFields"].as_array().map(Vec::as_slice).unwrap_or_default();
        let owns = |entry: &&Value| entry["fieldsV1"]["f:data"]["f:a"].is_object();
        let names: Vec<&str> =
            owners.iter().filter(owns).filter_map(|entry| entry["manager"].as_str()).collect();
        ensure!(names == ["other"], "{owners:?}");
        ensure!(
            server
                .ok(&["apply", "--server-side", "--dry-run=server", "-f", &path])?
                .contains("(server dry run)")
                || map["data"]["a"] == "3",
            "dry run"
        );
        Ok(())
    })
}

#[test]
fn waiting_ends_when_it_comes_true() -> Result<()> {
    with_each("apiserver", |server, _| {
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
                // Old versions say nothing of what was gone before they looked.
                ensure!(said.contains("condition met") || wait.contains(&"--for=delete"), "{wait:?}: {said}");
                anyhow::Ok(())
            })?;
        }
        server.ok(&["create", "configmap", "c"])?;
        let said = refused(server, &["wait", "cm/c", "--for=jsonpath={.data.a}=1", "--timeout=1s"])?;
        ensure!(said.contains("timed out waiting for the condition"), "{said}");
        Ok(())
    })
}
