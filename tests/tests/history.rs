//! What became of an object: over a server, by `kubectl pagurus history` as a user types it.

use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use pagurus_tests::server::Server;
use serde_json::Value;

/// kubectl with the plugin on its path.
fn kubectl(server: &Server, words: &[&str]) -> Result<Output> {
    let binaries = std::env::var("PAGURUS_BINARIES").context("PAGURUS_BINARIES is not set")?;
    let path = format!("{binaries}:{}", std::env::var("PATH").unwrap_or_default());
    let program = std::env::var("KUBECTL").unwrap_or_else(|_| "kubectl".to_owned());
    let mut command = Command::new(program);
    command.args(words).env("PATH", path).env("KUBECONFIG", server.kubeconfig());
    command.output().context("start kubectl")
}

fn ok(server: &Server, words: &[&str]) -> Result<String> {
    let out = kubectl(server, words)?;
    ensure!(out.status.success(), "kubectl {}: {}", words.join(" "), String::from_utf8_lossy(&out.stderr));
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

#[test]
fn kubectl_tells_what_happened() -> Result<()> {
    let Some(server) = Server::start()? else { return Ok(()) };
    if Command::new(std::env::var("KUBECTL").unwrap_or_else(|_| "kubectl".to_owned()))
        .arg("--help")
        .output()
        .is_err()
    {
        println!("SKIPPED: there is no kubectl here");
        return Ok(());
    }
    ok(&server, &["create", "deployment", "web", "--image=web:1"])?;
    ok(&server, &["set", "image", "deploy/web", "web=web:2"])?;
    ok(&server, &["scale", "deploy/web", "--replicas=3"])?;
    ok(&server, &["label", "deploy/web", "tier=front"])?;
    let said = ok(&server, &["pagurus", "history", "deploy", "web"])?;
    let lines: Vec<Vec<&str>> = said
        .lines()
        .map(|line| line.split("   ").map(str::trim).filter(|c| !c.is_empty()).collect())
        .collect();
    ensure!(lines[0] == ["REVISION", "TIME", "EVENT", "BY", "FIELDS"], "{said}");
    let rest: Vec<&[&str]> = lines[1..].iter().map(|line| &line[2..]).collect();
    ensure!(
        rest == [
            &["Modified", "kubectl-label (Update)", ".metadata.labels.tier"][..],
            &["Modified", "kubectl (Update of scale)", ".spec.replicas"],
            &["Modified", "kubectl-set (Update)", ".spec.template.spec.containers[name=\"web\"].image"],
            &["Created", "kubectl-create (Update)", ".metadata.labels,.spec,.status"],
        ],
        "{said}"
    );
    let revision = lines[2][0];
    let one = ok(&server, &["pagurus", "history", "deployment.apps/web", "--revision", revision])?;
    ensure!(one.contains(".spec.replicas\n  - 1\n  + 3\n"), "{one}");
    let none = kubectl(&server, &["pagurus", "history", "deploy/web", "--revision", "1"])?;
    ensure!(!none.status.success(), "revision 1 is before everything");
    // An object that is gone.
    ok(&server, &["delete", "deploy/web"])?;
    let json: Value =
        serde_json::from_str(&ok(&server, &["pagurus", "history", "deploy/web", "--json", "--limit", "2"])?)?;
    ensure!(json["kind"] == "ObjectHistory" && json["metadata"]["continue"].is_string(), "{json}");
    ensure!(
        json["items"][0]["event"] == "Deleted" && json["items"].as_array().map(Vec::len) == Some(2),
        "{json}"
    );
    for (words, said) in [
        (&["pagurus", "history", "deploy", "nobody"][..], "deployments.apps \"nobody\" not found"),
        (&["pagurus", "history", "nothing", "x"], "the server doesn't have a resource type \"nothing\""),
        (&["pagurus", "history", "deploy"], "KIND/NAME"),
    ] {
        let out = kubectl(&server, words)?;
        let error = String::from_utf8_lossy(&out.stderr).into_owned();
        ensure!(!out.status.success() && error.contains(said), "{words:?}: {error}");
    }
    let help = ok(&server, &["pagurus", "history", "--help"])?;
    ensure!(help.contains("kubectl pagurus history deploy/web --revision"), "{help}");
    Ok(())
}

/// Who may not read an object may not read what it was.
#[test]
fn a_history_is_for_those_who_may_read_the_object() -> Result<()> {
    let Some(server) = Server::start()? else { return Ok(()) };
    ok(&server, &["create", "secret", "generic", "s", "--from-literal=a=b"])?;
    let raw = "/api/v1/namespaces/default/secrets/s?view=history";
    ensure!(ok(&server, &["get", "--raw", raw])?.contains("ObjectHistory"), "the administrator may");
    ok(&server, &["create", "role", "lister", "--verb=list,watch", "--resource=secrets"])?;
    ok(&server, &["create", "rolebinding", "lister", "--role=lister", "--user=somebody"])?;
    let out = kubectl(&server, &["--as", "somebody", "get", "--raw", raw])?;
    let error = String::from_utf8_lossy(&out.stderr).into_owned();
    ensure!(!out.status.success() && error.contains("cannot get resource \"secrets\""), "{error}");
    Ok(())
}
