//! An operator as people install and use them: definitions in two versions with rules, roles and an account, a controller written with
//! kube that runs as that account, custom resources by kubectl in either version, an API server that is killed meanwhile.

mod controller;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kube::config::AuthInfo;
use pagurus_tests::eventually::eventually;
use pagurus_tests::kubectl::{self, Kubectl};
use pagurus_tests::server::Server;
use pagurus_tests::webhook::ConversionWebhook;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

const INSTALL: &str = include_str!("operator/install.yaml");
const LIMIT: Duration = Duration::from_secs(60);

/// What is `size` in the first version is `replicas` in the second, which has more.
fn convert(object: &mut Value, wanted: &str) {
    let (from, to) = if wanted.ends_with("/v1") { ("size", "replicas") } else { ("replicas", "size") };
    if let Some(spec) = object["spec"].as_object_mut()
        && let Some(value) = spec.remove(from)
    {
        spec.insert(to.to_owned(), value);
    }
}

/// The server with the operator in it, and who runs it.
struct Installed {
    server: Server,
    runtime: Runtime,
    candidates: Vec<(String, JoinHandle<Result<()>>)>,
}

impl Installed {
    fn on(mut server: Server, kubectl: &'static Kubectl) -> Result<Self> {
        server.use_kubectl(kubectl);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let webhook = runtime.block_on(ConversionWebhook::start(convert))?;
        let manifest = INSTALL.replace("CONVERSION", &webhook.conversion()?.to_string());
        write(&server, "install.yaml", &manifest)?;
        let mut this = Self { server, runtime, candidates: Vec::new() };
        this.ok("apply --server-side -f install.yaml")?;
        this.ok("wait crd --all --for=condition=Established --timeout=30s")?;
        let token = this.ok("create token operator -n ops --duration=1h")?;
        for name in ["a", "b"] {
            let candidate = this.runtime.block_on(async {
                let mut config = this.server.config().await?;
                config.auth_info =
                    AuthInfo { token: Some(token.trim().to_owned().into()), ..AuthInfo::default() };
                let client = kube::Client::try_from(config)?;
                anyhow::Ok(tokio::spawn(controller::candidate(client, name.to_owned())))
            })?;
            this.candidates.push((name.to_owned(), candidate));
        }
        Ok(this)
    }

    /// Runs kubectl in the directory of the files.
    fn run(&self, line: &str) -> Result<std::process::Output> {
        let words: Vec<&str> = line.split(' ').collect();
        Ok(self.server.command(&words)?.current_dir(self.server.data()).output()?)
    }

    fn ok(&self, line: &str) -> Result<String> {
        let out = self.run(line)?;
        ensure!(out.status.success(), "kubectl {line}: {}", String::from_utf8_lossy(&out.stderr).trim());
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }

    /// What it says when it refuses.
    fn refused(&self, line: &str) -> Result<String> {
        let out = self.run(line)?;
        ensure!(!out.status.success(), "kubectl {line} must fail");
        Ok(String::from_utf8_lossy(&out.stderr).into_owned())
    }

    fn json(&self, line: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.ok(&format!("{line} -o json"))?)?)
    }

    /// Waits until a place of an object is as wanted.
    fn becomes(&self, object: &str, place: &str, wanted: &Value) -> Result<()> {
        eventually(&format!("{place} of {object} is {wanted}"), LIMIT, || {
            let now = self.json(&format!("get {object}"))?;
            let found = now.pointer(place).unwrap_or(&Value::Null);
            ensure!(found == wanted, "it is {found}");
            Ok(Some(()))
        })
    }

    fn holder(&self) -> Result<String> {
        self.ok("get lease operator -n ops -o jsonpath={.spec.holderIdentity}")
    }
}

fn write(server: &Server, name: &str, text: &str) -> Result<()> {
    std::fs::write(server.data().join(name), text).with_context(|| format!("write {name}"))
}

fn cache(version: &str, name: &str, spec: &Value) -> String {
    json!({"apiVersion": format!("ops.pagurus.test/{version}"), "kind": "Cache", "metadata": {"name": name}, "spec": spec})
        .to_string()
}

#[test]
fn an_operator_is_installed_used_and_removed() -> Result<()> {
    if let Err(reason) = Kubectl::all() {
        println!("SKIPPED: {reason}");
        return Ok(());
    }
    kubectl::with_each(|kubectl| {
        let Some(server) = Server::start_with("apiserver,controllers", None)? else { return Ok(()) };
        let mut installed = Installed::on(server, kubectl)?;
        are_kept_in_both_versions(&installed)?;
        rules_hold(&installed)?;
        may_do_no_more_than_it_needs(&installed)?;
        goes_on_after_a_kill(&mut installed)?;
        another_leads(&mut installed)?;
        versions_of_one_schema(&installed)?;
        goes_with_all_it_owned(&installed)
    })
}

fn are_kept_in_both_versions(of: &Installed) -> Result<()> {
    write(&of.server, "old.json", &cache("v1alpha1", "old", &json!({"size": 2})))?;
    let settings = json!([{"name": "ttl", "value": "1h"}]);
    write(&of.server, "new.json", &cache("v1", "new", &json!({"engine": "fast", "settings": settings})))?;
    let out = of.run("apply -f old.json")?;
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    ensure!(
        out.status.success() && said.contains("ops.pagurus.test/v1alpha1 Cache is old; use v1"),
        "{said}"
    );
    of.ok("apply --server-side -f new.json")?;
    of.ok("wait caches --all --for=condition=Ready --timeout=60s")?;
    let old = of.json("get caches.v1alpha1.ops.pagurus.test old")?;
    ensure!(old["spec"] == json!({"engine": "plain", "size": 2}), "{old}");
    let old = of.json("get caches.v1.ops.pagurus.test old")?;
    ensure!(old["spec"] == json!({"engine": "plain", "max": 5, "replicas": 2}), "{old}");
    ensure!(old["status"]["observedGeneration"] == old["metadata"]["generation"], "{old}");
    let map = of.json("get configmap new")?;
    ensure!(map["data"] == json!({"engine": "fast", "ttl": "1h"}), "{map}");
    ensure!(map["metadata"]["ownerReferences"][0]["kind"] == "Cache", "{map}");
    let shown = of.ok("get ca")?;
    let rows: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
    ensure!(rows[0] == ["NAME", "ENGINE", "REPLICAS", "READY", "AGE"], "{shown}");
    ensure!(
        rows[1][..4] == ["new", "fast", "1", "True"] && rows[2][..4] == ["old", "plain", "2", "True"],
        "{shown}"
    );
    ensure!(of.ok("get ca -o wide")?.contains("SEEN"), "columns of a low priority");
    ensure!(
        of.ok("get ca --field-selector=spec.engine=fast -o name")? == "cache.ops.pagurus.test/new\n",
        "selected"
    );
    of.ok("scale cache/new --replicas=4")?;
    of.becomes("deployment/new", "/spec/replicas", &json!(4))?;
    of.becomes("cache/new", "/status/replicas", &json!(4))?;
    let scale = of.ok("get --raw /apis/ops.pagurus.test/v1/namespaces/default/caches/new/scale")?;
    ensure!(scale.contains("\"selector\":\"cache=new\""), "{scale}");
    let described = of.ok("describe cache new")?;
    ensure!(described.contains("generation 1 is kept") && described.contains("Engine:"), "{described}");
    let told = of.ok("get events --field-selector=reason=Kept,involvedObject.name=new")?;
    ensure!(told.contains("cache/new") && told.contains("generation"), "{told}");
    // Somebody else takes away what is owned, and changes it.
    of.ok("delete configmap new")?;
    of.becomes("configmap/new", "/data/ttl", &json!("1h"))?;
    of.ok("scale deployment/new --replicas=0")?;
    of.becomes("deployment/new", "/spec/replicas", &json!(4))
}

fn rules_hold(of: &Installed) -> Result<()> {
    for (patch, place, why) in [
        (r#"{"spec":{"replicas":9}}"#, "spec.replicas", "there may not be more replicas than max"),
        (r#"{"spec":{"engine":"plain"}}"#, "spec.engine", "the engine of a cache stays"),
        (r#"{"spec":{"engine":"none"}}"#, "spec.engine", "supported values: \"plain\", \"fast\""),
        (r#"{"spec":{"replicas":"x"}}"#, "spec.replicas", "must be of type integer: \"string\""),
    ] {
        let refused = of.refused(&format!("patch cache new --type=merge -p {patch}"))?;
        ensure!(refused.contains(place) && refused.contains(why), "{patch}: {refused}");
    }
    let refused =
        of.refused("patch caches.v1alpha1.ops.pagurus.test old --type=merge -p {\"spec\":{\"size\":-1}}")?;
    ensure!(refused.contains("spec.replicas") || refused.contains("spec.size"), "{refused}");
    let explained = of.ok("explain caches --recursive --api-version=ops.pagurus.test/v1")?;
    ensure!(
        explained.contains("A cache that an operator keeps.") && explained.contains("settings"),
        "{explained}"
    );
    Ok(())
}

fn may_do_no_more_than_it_needs(of: &Installed) -> Result<()> {
    let who = "--as=system:serviceaccount:ops:operator";
    for (asked, yes) in [
        ("patch caches.ops.pagurus.test --subresource=status", true),
        ("create configmaps", true),
        ("get secrets", false),
        ("delete caches.ops.pagurus.test", false),
    ] {
        let out = of.run(&format!("auth can-i {asked} {who}"))?;
        ensure!(out.status.success() == yes, "{asked}: {out:?}");
    }
    Ok(())
}

/// What was asked before the kill and what is asked afterwards both come about.
fn goes_on_after_a_kill(of: &mut Installed) -> Result<()> {
    of.ok("patch cache new --type=merge -p {\"spec\":{\"replicas\":3}}")?;
    of.server.kill()?;
    of.server.restart()?;
    of.becomes("deployment/new", "/spec/replicas", &json!(3))?;
    of.ok("patch caches.v1alpha1.ops.pagurus.test old --type=merge -p {\"spec\":{\"size\":5}}")?;
    of.becomes("deployment/old", "/spec/replicas", &json!(5))?;
    of.becomes("cache/old", "/status/replicas", &json!(5))
}

fn another_leads(of: &mut Installed) -> Result<()> {
    let holder = of.holder()?;
    let place = of.candidates.iter().position(|(name, _)| *name == holder).context("nobody leads")?;
    let (_, leader) = of.candidates.remove(place);
    ensure!(!leader.is_finished(), "the leader has ended");
    leader.abort();
    of.ok("patch cache new --type=merge -p {\"spec\":{\"replicas\":2}}")?;
    of.becomes("deployment/new", "/spec/replicas", &json!(2))?;
    ensure!(of.holder()? != holder, "another holds the lease");
    Ok(())
}

fn versions_of_one_schema(of: &Installed) -> Result<()> {
    let profile =
        r#"{"apiVersion":"ops.pagurus.test/v1alpha1","kind":"Profile","metadata":{"name":"p"},"a":1}"#;
    write(&of.server, "profile.json", profile)?;
    of.ok("create -f profile.json")?;
    let new = of.json("get profiles.v1.ops.pagurus.test p")?;
    ensure!(new["apiVersion"] == "ops.pagurus.test/v1" && new["a"] == 1, "{new}");
    Ok(())
}

fn goes_with_all_it_owned(of: &Installed) -> Result<()> {
    of.ok("delete cache old --timeout=60s")?;
    of.ok("get configmap old-farewell")?;
    for owned in ["deployment/old", "configmap/old"] {
        of.ok(&format!("wait {owned} --for=delete --timeout=60s"))?;
    }
    of.ok("get deployment/new")?;
    // The definitions, and with them the objects, while the operator is still there to let them go.
    of.ok("delete crd caches.ops.pagurus.test profiles.ops.pagurus.test --timeout=60s")?;
    of.ok("get configmap new-farewell")?;
    let refused = of.refused("get caches")?;
    // Whether its discovery is in kubectl's cache or not.
    let gone = ["the server doesn't have a resource type", "could not find the requested resource"];
    ensure!(gone.iter().any(|text| refused.contains(text)), "{refused}");
    of.ok("delete -f install.yaml --ignore-not-found --timeout=60s").map(drop)
}
