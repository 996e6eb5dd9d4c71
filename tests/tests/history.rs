//! What became of an object: over a server, by `kubectl pagurus history` as a user types it.

use anyhow::{Result, ensure};
use pagurus_tests::server::Server;
use serde_json::Value;

#[test]
fn kubectl_tells_what_happened() -> Result<()> {
    let Some(server) = Server::start()? else { return Ok(()) };
    if server.kubectl(&["version", "--client"]).is_err() {
        println!("SKIPPED: there is no kubectl here");
        return Ok(());
    }
    server.ok(&["create", "deployment", "web", "--image=web:1"])?;
    server.ok(&["set", "image", "deploy/web", "web=web:2"])?;
    server.ok(&["scale", "deploy/web", "--replicas=3"])?;
    server.ok(&["label", "deploy/web", "tier=front"])?;
    let said = server.ok(&["pagurus", "history", "deploy", "web"])?;
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
    let one = server.ok(&["pagurus", "history", "deployment.apps/web", "--revision", revision])?;
    ensure!(one.contains(".spec.replicas\n  - 1\n  + 3\n"), "{one}");
    let none = server.kubectl(&["pagurus", "history", "deploy/web", "--revision", "1"])?;
    ensure!(!none.status.success(), "revision 1 is before everything");
    // An object that is gone.
    server.ok(&["delete", "deploy/web"])?;
    let json: Value =
        serde_json::from_str(&server.ok(&["pagurus", "history", "deploy/web", "--json", "--limit", "2"])?)?;
    ensure!(json["kind"] == "ObjectHistory" && json["metadata"]["continue"].is_string(), "{json}");
    ensure!(
        json["items"][0]["event"] == "Deleted" && json["items"].as_array().map(Vec::len) == Some(2),
        "{json}"
    );
    let author = &json["items"][0]["managers"][0];
    ensure!(author["manager"] == "kubectl" && author["operation"] == "Delete", "{json}");
    let told = server.ok(&["pagurus", "history", "deploy/web"])?;
    let user = author["user"].as_str().unwrap_or_default();
    ensure!(!user.is_empty() && told.contains(&format!("kubectl (Delete as {user})")), "{told}");
    ensure!(json["items"][0]["time"].is_string(), "{json}");
    // Every state that was is there to be read, as ordinary requests have it.
    for (line, replicas) in [(&lines[1], 3), (&lines[2], 3), (&lines[3], 1)] {
        let path = format!(
            "/apis/apps/v1/namespaces/default/deployments/web?resourceVersionMatch=Exact&resourceVersion={}",
            line[0]
        );
        let then: Value = serde_json::from_str(&server.ok(&["get", "--raw", &path])?)?;
        ensure!(
            then["spec"]["replicas"] == replicas && then["metadata"]["resourceVersion"] == line[0],
            "{then}"
        );
    }
    for (words, said) in [
        (&["pagurus", "history", "deploy", "nobody"][..], "deployments.apps \"nobody\" not found"),
        (&["pagurus", "history", "nothing", "x"], "the server doesn't have a resource type \"nothing\""),
        (&["pagurus", "history", "deploy"], "KIND/NAME"),
    ] {
        let out = server.kubectl(words)?;
        let error = String::from_utf8_lossy(&out.stderr).into_owned();
        ensure!(!out.status.success() && error.contains(said), "{words:?}: {error}");
    }
    let help = server.ok(&["pagurus", "history", "--help"])?;
    ensure!(help.contains("kubectl pagurus history deploy/web --revision"), "{help}");
    Ok(())
}

/// Who may not read an object may not read what it was.
#[test]
fn a_history_is_for_those_who_may_read_the_object() -> Result<()> {
    let Some(server) = Server::start()? else { return Ok(()) };
    server.ok(&["create", "secret", "generic", "s", "--from-literal=a=b"])?;
    let raw = "/api/v1/namespaces/default/secrets/s?view=history";
    ensure!(server.ok(&["get", "--raw", raw])?.contains("ObjectHistory"), "the administrator may");
    server.ok(&["create", "role", "lister", "--verb=list,watch", "--resource=secrets"])?;
    server.ok(&["create", "rolebinding", "lister", "--role=lister", "--user=somebody"])?;
    let out = server.kubectl(&["--as", "somebody", "get", "--raw", raw])?;
    let error = String::from_utf8_lossy(&out.stderr).into_owned();
    ensure!(!out.status.success() && error.contains("cannot get resource \"secrets\""), "{error}");
    Ok(())
}
