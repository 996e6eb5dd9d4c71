//! An object of every kind that the server has, through every command that takes objects of any kind.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use pagurus_tests::server::Server;
use serde_json::Value;

use super::{refused, with_each};

/// An object of every built-in kind, and the definition of one more.
const BUILT_IN: &str = include_str!("kinds.yaml");
/// An object of that kind.
const CUSTOM: &str = "apiVersion: pagurus.test/v1\nkind: One\nmetadata: {name: one}\nspec: {replicas: 1}\n";
/// Another name of a kind that is there.
const OTHERS: [(Option<&str>, Option<&str>); 1] = [(Some("events.k8s.io/v1"), Some("Event"))];

/// A manifest, and what is in it.
struct Manifest {
    text: &'static str,
    object: Value,
}

impl Manifest {
    /// Its kind and name as kubectl says them: `deployment.apps/one`.
    fn reference(&self) -> String {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let kind = text(&self.object["kind"]).to_lowercase();
        let name = text(&self.object["metadata"]["name"]);
        match text(&self.object["apiVersion"]).split_once('/') {
            Some((group, _)) => format!("{kind}.{group}/{name}"),
            None => format!("{kind}/{name}"),
        }
    }
}

/// The files that commands are given, by what the objects in them can do.
struct Files {
    all: Vec<Manifest>,
    built_in: String,
    custom: String,
    /// Those with the subresource `status`, and how many these are.
    status: (String, usize),
    /// The same for `scale`.
    scale: (String, usize),
}

impl Files {
    fn write(server: &Server) -> Result<Self> {
        let texts = BUILT_IN.split("\n---\n").chain([CUSTOM]);
        let all = texts.map(|text| {
            let object = serde_saphyr::from_str(text).with_context(|| format!("no YAML: {text}"))?;
            Ok(Manifest { text, object })
        });
        let all = all.collect::<Result<Vec<_>>>()?;
        let directory = server.data().to_owned();
        let with = |name: &str, kinds: &BTreeSet<(String, String)>| {
            let of = |m: &&Manifest| {
                let text = |field: &str| m.object[field].as_str().unwrap_or_default().to_owned();
                kinds.contains(&(text("apiVersion"), text("kind")))
            };
            let texts: Vec<&str> = all.iter().filter(of).map(|m| m.text).collect();
            Ok::<_, anyhow::Error>((write(&directory, name, &texts.join("\n---\n"))?, texts.len()))
        };
        let subresources = subresources(server)?;
        let none = BTreeSet::new();
        let status = with("status.yaml", subresources.get("status").unwrap_or(&none))?;
        let scale = with("scale.yaml", subresources.get("scale").unwrap_or(&none))?;
        let built_in = write(&directory, "built-in.yaml", BUILT_IN)?;
        let custom = write(&directory, "custom.yaml", CUSTOM)?;
        Ok(Self { all, built_in, custom, status, scale })
    }

    /// Runs a command on all objects; what it prints.
    fn run(&self, server: &Server, words: &[&str]) -> Result<String> {
        server.ok(&[words, &["-f", &self.built_in, "-f", &self.custom]].concat())
    }

    /// Runs a command on all objects, which says a line for each that ends in one of these words.
    fn each(&self, server: &Server, words: &[&str], ends: &[&str]) -> Result<()> {
        let said = self.run(server, words)?;
        told(&said, self.all.len(), ends).with_context(|| words.join(" "))
    }
}

fn write(directory: &Path, name: &str, text: &str) -> Result<String> {
    let path = directory.join(name);
    std::fs::write(&path, text)?;
    Ok(path.display().to_string())
}

/// Whether there are so many lines, each with one of these ends.
fn told(said: &str, count: usize, ends: &[&str]) -> Result<()> {
    let wrong: Vec<&str> = said.lines().filter(|line| !ends.iter().any(|end| line.ends_with(end))).collect();
    ensure!(wrong.is_empty(), "not {ends:?}: {wrong:?}");
    ensure!(said.lines().count() == count, "{} lines for {count} objects: {said}", said.lines().count());
    Ok(())
}

/// The kinds that have them, by subresource; as the server's discovery says. Kinds served later are in it, too.
fn subresources(server: &Server) -> Result<BTreeMap<String, BTreeSet<(String, String)>>> {
    let mut found: BTreeMap<String, BTreeSet<(String, String)>> = BTreeMap::new();
    for version in server.ok(&["api-versions"])?.lines() {
        let path = if version.contains('/') { format!("/apis/{version}") } else { format!("/api/{version}") };
        let listed: Value = serde_json::from_str(&server.ok(&["get", "--raw", &path])?)?;
        let listed = listed["resources"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        for whole in listed.iter().filter(|resource| !text(&resource["name"]).contains('/')) {
            let prefix = format!("{}/", text(&whole["name"]));
            for below in listed.iter().filter_map(|r| r["name"].as_str()?.strip_prefix(&prefix)) {
                found.entry(below.to_owned()).or_default().insert((version.to_owned(), text(&whole["kind"])));
            }
        }
    }
    for below in ["status", "scale"] {
        let custom = ("pagurus.test/v1".to_owned(), "One".to_owned());
        found.entry(below.to_owned()).or_default().insert(custom);
    }
    Ok(found)
}

#[test]
fn objects_of_every_kind_take_every_command() -> Result<()> {
    with_each("apiserver", |server, minor| {
        let files = Files::write(server)?;
        are_applied(server, &files)?;
        are_shown(server, &files)?;
        are_explained_and_described(server, &files, minor)?;
        are_changed(server, &files)?;
        are_replaced_and_edited(server, &files)?;
        are_deleted(server, &files)
    })
}

/// Made by server-side apply, which changes nothing the second time; then taken over by client-side apply.
fn are_applied(server: &Server, files: &Files) -> Result<()> {
    let server_side = ["apply", "--server-side", "--field-manager=tests"];
    let built_in = [&server_side[..], &["-f", &files.built_in]].concat();
    told(&server.ok(&built_in)?, files.all.len() - 1, &["serverside-applied"])?;
    server.ok(&["wait", "crd/ones.pagurus.test", "--for=condition=Established", "--timeout=20s"])?;
    let before =
        files.each(server, &server_side, &["serverside-applied"]).and_then(|()| revisions(server, files))?;
    files.each(server, &server_side, &["serverside-applied"])?;
    let after = revisions(server, files)?;
    // What is applied again is not written again.
    let changed: Vec<_> = before.iter().zip(&after).filter(|(old, new)| old != new).collect();
    ensure!(changed.is_empty(), "applied again: {changed:?}");
    files.run(server, &["diff", "--server-side", "--field-manager=tests"])?;
    // Of some kinds kubectl sends the same patch each time (lists that are one value, which the server fills in): it changes nothing.
    let ends = ["configured", "unchanged"];
    files.each(server, &["apply"], &ends)?;
    let before = revisions(server, files)?;
    files.run(server, &["diff"])?;
    files.each(server, &["apply"], &ends)?;
    let after = revisions(server, files)?;
    let changed: Vec<_> = before.iter().zip(&after).filter(|(old, new)| old != new).collect();
    ensure!(changed.is_empty(), "applied again by the client: {changed:?}");
    Ok(())
}

fn revisions(server: &Server, files: &Files) -> Result<Vec<String>> {
    let path =
        r#"-o=jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.resourceVersion}{"\n"}{end}"#;
    Ok(files.run(server, &["get", path])?.lines().map(str::to_owned).collect())
}

/// In every form that `get` has.
fn are_shown(server: &Server, files: &Files) -> Result<()> {
    let kinds = server.ok(&["api-resources", "--verbs=list,create", "--no-headers"])?;
    for line in kinds.lines() {
        let mut words = line.split_whitespace().rev();
        let (kind, version) = (words.next(), words.nth(1));
        let is =
            |m: &Manifest| m.object["kind"].as_str() == kind && m.object["apiVersion"].as_str() == version;
        ensure!(OTHERS.contains(&(version, kind)) || files.all.iter().any(is), "no object of {line:?}");
    }
    let wide = files.run(server, &["get", "-o", "wide"])?;
    for manifest in &files.all {
        // A table that marks no column as the name gets no kind before it.
        let told =
            manifest.object["kind"] == "StorageVersionMigration" || wide.contains(&manifest.reference());
        ensure!(told, "no row of {}: {wide}", manifest.reference());
    }
    let count = files.all.len();
    let lines = |words: &[&str]| Ok::<_, anyhow::Error>(files.run(server, words)?.lines().count());
    ensure!(lines(&["get", "-o", "name"])? == count, "names");
    ensure!(lines(&["get", "-o", "custom-columns=K:.kind,N:.metadata.name"])? == count + 1, "columns");
    ensure!(
        lines(&["get", r#"-o=go-template={{range .items}}{{.kind}}{{"\n"}}{{end}}"#])? == count,
        "template"
    );
    ensure!(revisions(server, files)?.len() == count, "paths");
    let json: Value = serde_json::from_str(&files.run(server, &["get", "-o", "json"])?)?;
    let yaml: Value = serde_saphyr::from_str(&files.run(server, &["get", "-o", "yaml"])?)?;
    ensure!(json["items"].as_array().map(Vec::len) == Some(count) && json == yaml, "JSON and YAML differ");
    Ok(())
}

/// Kinds that versions of kubectl describe by asking for versions of the API that are gone: the first and the last of them.
const NOT_DESCRIBED: [(u32, u32, &str); 3] = [
    (26, 32, "ipaddress.networking.k8s.io"),
    (28, 32, "servicecidr.networking.k8s.io"),
    (29, 33, "volumeattributesclass.storage.k8s.io"),
];

fn are_explained_and_described(server: &Server, files: &Files, minor: u32) -> Result<()> {
    let kinds = server.ok(&["api-resources", "--verbs=get", "-o", "name"])?;
    for kind in kinds.lines() {
        // kubectl reads the second dot of this name as that of a field.
        let explained = match kind {
            "events.events.k8s.io" => {
                &["explain", "events", "--api-version=events.k8s.io/v1", "--recursive"][..]
            }
            kind => &["explain", kind, "--recursive"],
        };
        let explained = server.ok(explained)?;
        let told = explained.contains("KIND:") && explained.contains("FIELDS:");
        ensure!(told && explained.contains("\n  metadata\t<ObjectMeta>"), "{kind}: {explained}");
    }
    let mut texts = Vec::new();
    for manifest in &files.all {
        let reference = manifest.reference();
        let kind = reference.split_once('/').map_or("", |(kind, _)| kind);
        if NOT_DESCRIBED.iter().any(|(from, to, gone)| (*from..=*to).contains(&minor) && *gone == kind) {
            println!("kubectl 1.{minor} cannot describe {kind}: left out");
        } else {
            texts.push(manifest.text);
        }
    }
    let described = write(server.data(), "described.yaml", &texts.join("\n---\n"))?;
    let described = server.ok(&["describe", "-f", &described])?;
    let is_name =
        |line: &&str| line.starts_with("Name:") && (line.contains("one") || line.contains("10.96.77.7"));
    ensure!(described.lines().filter(is_name).count() >= texts.len(), "{described}");
    Ok(())
}

/// By labels, annotations, and patches of all types and to all subresources.
fn are_changed(server: &Server, files: &Files) -> Result<()> {
    files.each(server, &["label", "by=label"], &["labeled"])?;
    files.each(server, &["label", "by-"], &["unlabeled"])?;
    files.each(server, &["annotate", "edited=zero", "by=annotate"], &["annotated"])?;
    files.each(server, &["annotate", "by-"], &["annotated"])?;
    let merge = r#"{"metadata":{"labels":{"merge":"1"}}}"#;
    files.each(server, &["patch", "--type=merge", "-p", merge], &["patched"])?;
    let before = revisions(server, files)?;
    files.run(server, &["patch", "--type=merge", "-p", merge])?;
    ensure!(revisions(server, files)? == before, "a patch that changes nothing");
    let json = r#"[{"op":"test","path":"/metadata/labels/merge","value":"1"},{"op":"add","path":"/metadata/labels/json","value":"1"}]"#;
    files.each(server, &["patch", "--type=json", "-p", json], &["patched"])?;
    let strategic =
        r#"{"metadata":{"labels":{"strategic":"1"},"$deleteFromPrimitiveList/finalizers":["none"]}}"#;
    let words = ["patch", "--type=strategic", "-p", strategic, "-f"];
    let said = server.ok(&[&words[..], &[&files.built_in]].concat())?;
    told(&said, files.all.len() - 1, &["patched"]).context("a strategic merge patch")?;
    let said = refused(server, &[&words[..], &[&files.custom]].concat())?;
    ensure!(
        said.contains("application/merge-patch+json"),
        "a strategic merge patch of a custom kind: {said}"
    );
    let (status, count) = &files.status;
    ensure!(*count > 20, "{count} kinds have a status");
    let words = ["patch", "--subresource=status", "--type=merge", "-p", "{}", "-f", status];
    told(&server.ok(&words)?, *count, &["patched", "(no change)"])?;
    let (scale, count) = &files.scale;
    ensure!(*count == 5, "{count} kinds can be scaled");
    told(&server.ok(&["scale", "--replicas=3", "-f", scale])?, *count, &["scaled"])?;
    let two = r#"{"spec":{"replicas":2}}"#;
    let words = ["patch", "--subresource=scale", "--type=merge", "-p", two, "-f", scale];
    told(&server.ok(&words)?, *count, &["patched"])?;
    let path = "-o=jsonpath={.items[*].spec.replicas}";
    ensure!(server.ok(&["get", path, "-f", scale])? == "2 2 2 2 2", "scaled");
    let met = "--for=jsonpath={.metadata.labels.json}=1";
    files.each(server, &["wait", met, "--timeout=120s"], &["condition met"])
}

/// As wholes: by `replace` with what `get` gave, and by an editor.
fn are_replaced_and_edited(server: &Server, files: &Files) -> Result<()> {
    let whole = files.run(server, &["get", "-o", "yaml"])?;
    let whole = write(server.data(), "whole.yaml", &whole)?;
    let said = server.ok(&["replace", "-f", &whole])?;
    told(&said, files.all.len(), &["replaced"]).context("replace")?;
    let editor = write(server.data(), "editor", "#!/bin/sh\nsed -i 's/edited: zero/edited: one/' \"$1\"\n")?;
    std::fs::set_permissions(&editor, std::fs::Permissions::from_mode(0o755))?;
    let words = ["edit", "-f", &files.built_in, "-f", &files.custom];
    let out = server.command(&words)?.env("KUBE_EDITOR", editor).output()?;
    let said = String::from_utf8_lossy(&out.stdout);
    told(&said, files.all.len(), &["edited"])
        .with_context(|| format!("edit: {}", String::from_utf8_lossy(&out.stderr)))?;
    let path = "-o=jsonpath={range .items[*]}{.metadata.annotations.edited}{end}";
    ensure!(files.run(server, &["get", path])? == "one".repeat(files.all.len()), "edited");
    Ok(())
}

/// Each is gone, or waits for its finalizers.
fn are_deleted(server: &Server, files: &Files) -> Result<()> {
    // The custom one first: it goes with its definition.
    let said = server.ok(&["delete", "--wait=false", "-f", &files.custom, "-f", &files.built_in])?;
    ensure!(said.lines().filter(|line| line.contains("deleted")).count() == files.all.len(), "{said}");
    let left = server.ok(&["get", "--ignore-not-found", "-o", "json", "-f", &files.built_in])?;
    if left.is_empty() {
        return Ok(());
    }
    let left: Value = serde_json::from_str(&left)?;
    let one = std::slice::from_ref(&left);
    for object in left["items"].as_array().map_or(one, Vec::as_slice) {
        let meta = &object["metadata"];
        let held = meta["finalizers"].is_array() || object["spec"]["finalizers"].is_array();
        ensure!(meta["deletionTimestamp"].is_string() && held, "it is still there: {object}");
    }
    Ok(())
}
