//! Volumes on a real file system, below a directory of the test. What needs root says so and is left out without it.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::Arc;

use pagurus_agent_core::pods::env::ObjectData;
use pagurus_agent_core::volumes::payload::{File, Payload};
use serde_json::json;

use super::*;

fn files(entries: &[(&str, &str)]) -> Payload {
    entries
        .iter()
        .map(|(path, data)| ((*path).to_owned(), File { data: data.as_bytes().to_vec(), mode: 0o640 }))
        .collect()
}

/// What a reader sees: the files behind the links of the top level.
fn seen(directory: &Path) -> BTreeMap<String, String> {
    fn walk(directory: &Path, below: &str, out: &mut BTreeMap<String, String>) {
        for entry in std::fs::read_dir(directory).unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap();
            if name.starts_with("..") {
                continue;
            }
            let path = if below.is_empty() { name } else { format!("{below}/{name}") };
            if entry.path().is_dir() {
                walk(&entry.path(), &path, out);
            } else {
                out.insert(path, std::fs::read_to_string(entry.path()).unwrap());
            }
        }
    }
    let mut out = BTreeMap::new();
    walk(directory, "", &mut out);
    out
}

fn versions(directory: &Path) -> Vec<String> {
    let names =
        std::fs::read_dir(directory).unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("..2")).collect()
}

#[test]
fn content_changes_as_a_whole() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path();
    let check = |entries: &[(&str, &str)]| {
        atomic::write(path, &files(entries), None).unwrap();
        let expected: BTreeMap<_, _> =
            entries.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        assert_eq!(seen(path), expected);
        assert_eq!(versions(path).len(), 1, "old versions are removed");
    };
    check(&[("a", "1"), ("d/e", "2"), ("d/f/g", "3")]);
    let first = versions(path);
    check(&[("a", "1"), ("d/e", "2"), ("d/f/g", "3")]);
    assert_eq!(versions(path), first, "the same content is not written again");
    check(&[("a", "9"), ("d/e", "2")]);
    assert_ne!(versions(path), first);
    check(&[("b", "1")]);
    check(&[]);
    let mode = |name: &str| std::fs::metadata(path.join(name)).unwrap().permissions().mode() & 0o777;
    check(&[("m", "1")]);
    assert_eq!(mode("m"), 0o640);
    // A change of permissions alone is one too.
    let mut stricter = files(&[("m", "1")]);
    stricter.get_mut("m").unwrap().mode = 0o400;
    atomic::write(path, &stricter, None).unwrap();
    assert_eq!(mode("m"), 0o400);
}

#[test]
fn a_writer_that_died_half_way_is_mended() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path();
    atomic::write(path, &files(&[("a", "1")]), None).unwrap();
    // Died after making a version, before switching to it; and with the link to the next one left over.
    std::fs::create_dir(path.join("..2020_01_01_00_00_00.000000000")).unwrap();
    symlink("..2020_01_01_00_00_00.000000000", path.join("..data_tmp")).unwrap();
    atomic::write(path, &files(&[("a", "2")]), None).unwrap();
    assert_eq!(seen(path)["a"], "2");
    assert_eq!(versions(path).len(), 1);
    // Died after switching, before the links of the names.
    std::fs::remove_file(path.join("a")).unwrap();
    atomic::write(path, &files(&[("a", "2")]), None).unwrap();
    assert_eq!(seen(path)["a"], "2");
}

#[test]
fn host_paths() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name).to_string_lossy().into_owned();
    std::fs::write(path("file"), "").unwrap();
    std::fs::create_dir(path("dir")).unwrap();
    let check = |name: &str, kind: &str, expected: Result<(), &str>| {
        let found = host_path::check(&pagurus_agent_core::pods::spec::HostPath {
            path: path(name),
            kind: kind.into(),
        });
        match (found, expected) {
            (Ok(()), Ok(())) => {}
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (found, expected) => panic!("{name} {kind}: {found:?}, not {expected:?}"),
        }
    };
    check("none", "", Ok(()));
    check("dir", "Directory", Ok(()));
    check("file", "Directory", Err("file is not a directory"));
    check("none", "Directory", Err("none is not a directory"));
    check("new/dir", "DirectoryOrCreate", Ok(()));
    check("new/dir/file", "FileOrCreate", Ok(()));
    check("none/file", "FileOrCreate", Err("make file"));
    check("file", "File", Ok(()));
    check("dir", "Socket", Err("dir is not a socket file"));
    check("dir", "Strange", Err("hostPath of type Strange"));
}

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("SKIPPED: mounting needs root");
    }
    root
}

#[test]
fn sub_paths_stay_inside() {
    if !is_root() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let (volume, outside, target) =
        (scratch.path().join("v"), scratch.path().join("outside"), scratch.path().join("t/0"));
    std::fs::create_dir_all(volume.join("a")).unwrap();
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("secret"), "s").unwrap();
    std::fs::write(volume.join("a/file"), "f").unwrap();
    symlink(&outside, volume.join("absolute")).unwrap();
    symlink("../outside", volume.join("relative")).unwrap();
    symlink("a", volume.join("inner")).unwrap();
    let try_bind = |path: &str| {
        let bound = sub_path::bind(&volume, path, &target).map_err(|error| error.to_string());
        let content = std::fs::read_dir(&target).into_iter().flatten().flatten().count();
        mounts::unmount_below(&target).unwrap();
        removal::remove(&target).unwrap();
        bound.map(|()| content)
    };
    assert_eq!(try_bind("a"), Ok(1));
    assert_eq!(try_bind("inner"), Ok(1));
    assert_eq!(try_bind("new/deep"), Ok(0));
    assert!(volume.join("new/deep").is_dir());
    for path in ["absolute", "relative", "relative/secret", "../outside", "/etc", "absolute/new"] {
        let error = try_bind(path).expect_err(path);
        assert!(error.contains("leads out"), "{path}: {error}");
    }
    assert!(!outside.join("new").exists());
    sub_path::bind(&volume, "a/file", &target).unwrap();
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "f");
    // Binding again replaces.
    sub_path::bind(&volume, "a/file", &target).unwrap();
    mounts::unmount_below(scratch.path()).unwrap();
    assert_eq!(mounts::is_mounted_below(scratch.path()).unwrap(), None);
}

#[test]
fn a_pods_volumes_come_and_go() {
    if !is_root() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let dirs = PodDirs { root: scratch.path().join("root"), logs: scratch.path().join("logs") };
    let host = scratch.path().join("host");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("keep"), "k").unwrap();
    let pod = Pod::decode(json!({
        "metadata": {"namespace": "n", "name": "p", "uid": "u-1", "labels": {"a": "b"}},
        "spec": {"securityContext": {"fsGroup": 4242}, "volumes": [
            {"name": "disk", "emptyDir": {}},
            {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            {"name": "secret", "secret": {"secretName": "s", "defaultMode": 256}},
            {"name": "projected", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
            {"name": "host", "hostPath": {"path": host}},
        ]},
    }))
    .unwrap();
    let mut around = Surroundings::default();
    let secret =
        ObjectData { data: BTreeMap::from([("k".to_owned(), b"v".to_vec())]), binary: BTreeMap::new() };
    let tokens = Tokens::from([((String::new(), 3600), "t".to_owned())]);
    let missing = prepare(&dirs, &pod, &around, &tokens).unwrap_err();
    assert_eq!(missing["secret"].to_string(), "secret \"s\" not found");
    assert_eq!(missing.len(), 1, "the others are made all the same");
    around.objects.secrets.insert("s".into(), Arc::new(secret));
    for _ in 0..2 {
        prepare(&dirs, &pod, &around, &tokens).unwrap();
    }
    let at = |name: &str| dirs.pod(&pod.uid).join("volumes").join(name);
    let secret = at("kubernetes.io~secret/secret/k");
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "v");
    let metadata = std::fs::metadata(&secret).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o440, "the group reads");
    assert_eq!(std::os::unix::fs::MetadataExt::gid(&metadata), 4242);
    assert_eq!(std::fs::read_to_string(at("kubernetes.io~projected/projected/token")).unwrap(), "t");
    let disk = std::fs::metadata(at("kubernetes.io~empty-dir/disk")).unwrap();
    assert_eq!(disk.permissions().mode() & 0o7777, 0o2777);
    std::fs::write(at("kubernetes.io~empty-dir/memory/x"), "x").unwrap();
    let mounted = mounts::is_mounted_below(&dirs.pod(&pod.uid)).unwrap();
    assert!(mounted.is_some());
    // A bind of the node's directory below the pod must not be emptied with it.
    sub_path::bind(&host, ".", &dirs.sub_path(&pod.uid, "host", "c", 0)).unwrap();
    assert!(matches!(removal::remove(&dirs.pod(&pod.uid)), Err(VolumeError::StillMounted(_))));
    for _ in 0..2 {
        clean_up(&dirs, &pod.uid).unwrap();
    }
    assert!(!dirs.pod(&pod.uid).exists());
    assert!(!dirs.pod_logs(&pod.name, &pod.uid).exists());
    assert_eq!(std::fs::read_to_string(host.join("keep")).unwrap(), "k");
}
